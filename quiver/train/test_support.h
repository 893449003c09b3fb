// What the tests of training share: a tiny model, random adapters, sequences with common prefixes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quiver/adapters/init.h"
#include "quiver/base/random.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/reference_decoder.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

namespace fs = std::filesystem;
inline const fs::path kGolden = "tests/golden";

inline model::Model tiny(torch::Dtype dtype = torch::kFloat, const std::string& name = "llama-tied") {
  return model::golden_model(name, dtype);
}

inline adapters::LoraAdapter random_adapter(const model::Model& model, std::uint64_t seed,
                                            std::vector<std::string> target_modules = {"all-linear"}) {
  auto adapter = adapters::initial_adapter("random", {.target_modules = std::move(target_modules)}, model.linears(), seed);
  for (auto& [path, pair] : adapter.pairs) {
    RandomStream random(seed, "b/" + path);
    pair = adapters::LoraPair(pair.lora_a(), tensor::uniform(pair.lora_b().sizes(), 0.05, random), pair.alpha());
  }
  return adapter;
}

/// The adapter with views of `flat` [P] as its tensors, laid out as FlatParameters does.
inline adapters::LoraAdapter on_flat(adapters::LoraAdapter adapter, const torch::Tensor& flat) {
  std::int64_t offset = 0;
  for (auto& [path, pair] : adapter.pairs) {
    auto tensors = pair.tensors();
    for (auto& t : tensors) {
      const auto size = t.numel();
      t = flat.narrow(0, offset, size).view(t.sizes());
      offset += size;
    }
    pair = pair.with_tensors(tensors);
  }
  return adapter;
}

/// The loss of a batch and its gradient in the values of a flat adapter, by the definition, in float64.
struct ReferenceGradient {
  double loss = 0;
  torch::Tensor gradient;
};
inline ReferenceGradient reference_gradient(const model::Model& base, OneAdapter& trained, const forest::TokenForest& forest,
                                            const model::LossTargets& targets) {
  const auto leaf = trained.values().to(torch::kDouble).clone().requires_grad_();
  const auto loss = testing::reference_loss(base, forest, targets, testing::adapter_definitions(on_flat(trained.live(), leaf)));
  loss.backward();
  return {loss.item<double>(), leaf.grad()};
}

/// Sequences of a random tree of given depth: every node's path is the prefix of its children's; some end early, some
/// differ in one token only.
inline std::vector<forest::Sequence> nested_sequences(int depth, std::uint64_t seed) {
  RandomStream random(seed, "nested");
  std::vector<std::vector<std::int32_t>> paths = {{}};
  const auto extend = [&](std::vector<std::int32_t> path, std::uint64_t length) {
    for (std::uint64_t i = 0; i < length; ++i) path.push_back(static_cast<std::int32_t>(3 + random.below(300)));
    return path;
  };
  std::vector<std::vector<std::int32_t>> leaves;
  for (int level = 0; level < depth; ++level) {
    std::vector<std::vector<std::int32_t>> next;
    for (const auto& path : paths) {
      for (int child = 0; child < 2; ++child) next.push_back(extend(path, 1 + random.below(7)));
      if (!path.empty()) leaves.push_back(extend(path, 1));  // its last token gets no row: a child of length zero
      if (!path.empty()) leaves.push_back(extend(path, 2));  // and one of a single token
    }
    paths = next;
  }
  leaves.insert(leaves.end(), paths.begin(), paths.end());
  std::vector<forest::Sequence> sequences;
  for (auto& tokens : leaves) {
    if (tokens.size() < 2) tokens = extend(tokens, 2);
    const auto targets = 1 + random.below(std::min<std::uint64_t>(tokens.size() - 1, 5));
    sequences.push_back({tokens, static_cast<std::int64_t>(targets)});
  }
  return sequences;
}

}  // namespace quiver::train
