// What quantised products cost on real text: SmolLM2 with its file's weights dense in float32 is the reference.
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "quiver/io/json.h"
#include "quiver/model/decoder.h"
#include "quiver/model/model.h"
#include "quiver/testing/smollm2.h"
#include "quiver/text/tokenizer.h"

namespace quiver::eval {
namespace {

constexpr std::size_t kTextTokens = 191;

/// The first rows of different task files, cut to a length.
std::vector<std::vector<std::int32_t>> texts(const text::Tokenizer& tokenizer, std::size_t count) {
  std::vector<std::vector<std::int32_t>> result;
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator("data/heldout_sni")) {
    if (entry.path().string().ends_with(".jsonl.zst")) files.insert(entry.path());
  }
  for (const auto& file : files) {
    if (result.size() == count) break;
    io::JsonLinesReader reader(file);
    std::string text;
    for (auto row = reader.next(); row && text.size() < 2000; row = reader.next()) {
      text += row->value("instruction", "") + "\n" + row->value("input", "") + "\n";
    }
    auto ids = tokenizer.encode(text);
    if (ids.size() < kTextTokens) continue;
    ids.resize(kTextTokens);
    result.push_back(std::move(ids));
  }
  return result;
}

/// log softmax of the logits after every token, float64.
torch::Tensor log_probs(const model::Model& model, const torch::Tensor& hidden) {
  return torch::log_softmax(model.head().logits(hidden).to(torch::kDouble), 1);
}

torch::Tensor log_probs(const model::Model& model, const std::vector<std::int32_t>& tokens) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, tokens);
  return log_probs(model, hidden_of_all(model, model::forest_rows(forest)));
}

/// The same token by token over a KV cache, as decoding goes.
torch::Tensor decoded_log_probs(const model::Model& model, const std::vector<std::int32_t>& tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  auto cache = model.make_cache(count);
  std::vector<torch::Tensor> hidden;
  for (std::int64_t i = 0; i < count; ++i) {
    backend::CachedRun run{.own = {{i, 1}}, .visible = {}};
    if (i > 0) run.visible = {{0, i}};
    const auto plan = std::make_shared<backend::AttentionPlan>(backend::plan_over_cache({run}, count));
    const model::ForwardRows rows{.tokens = {tokens[static_cast<std::size_t>(i)]},
                                  .positions = {i},
                                  .groups = {},
                                  .plan = plan,
                                  .cache = &cache,
                                  .cache_rows = {i},
                                  .attend_to_cache = true};
    hidden.push_back(hidden_of_all(model, rows));
  }
  return log_probs(model, torch::cat(hidden));
}

struct Difference {
  double kl = 0, largest = 0;     ///< means over positions of KL(reference || other) and of |change| of the next token; the largest change
  double change = 0, widest = 0;  ///< the most by which a greedy token that differs was likelier, in nats
  std::int64_t num_positions = 0, num_other_greedy = 0,
               num_clear = 0;  ///< greedy tokens that differ; those of them that were likelier by a per cent

  void add(const torch::Tensor& reference, const torch::Tensor& other, const std::vector<std::int32_t>& tokens) {
    const auto count = reference.size(0) - 1;
    const auto next = torch::tensor(std::vector<std::int32_t>(tokens.begin() + 1, tokens.end()), torch::kLong).unsqueeze(1);
    const auto a = reference.narrow(0, 0, count), b = other.narrow(0, 0, count);
    kl += (a.exp() * (a - b)).sum().item<double>();
    const auto changes = (a.gather(1, next) - b.gather(1, next)).abs();
    change += changes.sum().item<double>();
    largest = std::max(largest, changes.max().item<double>());
    const auto is_other = a.argmax(1) != b.argmax(1);
    const auto two_likeliest = std::get<0>(a.topk(2, 1));
    num_other_greedy += is_other.sum().item<std::int64_t>();
    const auto gaps = (two_likeliest.select(1, 0) - two_likeliest.select(1, 1)) * is_other;
    widest = std::max(widest, gaps.max().item<double>());
    num_clear += (gaps > 0.01).sum().item<std::int64_t>();
    num_positions += count;
  }
  void print(const char* what) const {
    std::printf("%s: %lld positions, KL mean %.2e, other greedy tokens %lld (by %.4f), change of log p mean %.5f, largest %.4f\n", what,
                static_cast<long long>(num_positions), kl / static_cast<double>(num_positions), static_cast<long long>(num_other_greedy),
                widest, change / static_cast<double>(num_positions), largest);
  }
};

/// QUIVER_ACCURACY_TEXTS says how many texts of 191 tokens; 8 give 1,520 positions.
TEST(QuantizedAccuracy, IsThatOfFloat32) {
  const auto path = testing::smollm2_path();
  if (path.empty()) GTEST_SKIP() << "the default base model is not in the cache; run 'quiver fetch'";
  const auto dense = model::load_model(path, {torch::kCPU, torch::kFloat});
  const auto quantized = model::load_model(path, {torch::kCPU, torch::kFloat}, {.base_weights = model::Weights::kQuantized});
  const auto tokenizer = text::load_tokenizer(path);
  const torch::InferenceMode inference;
  const char* given = std::getenv("QUIVER_ACCURACY_TEXTS");
  const auto count = given == nullptr ? 1 : static_cast<std::size_t>(std::stoul(given));
  Difference together, one_by_one;
  for (const auto& tokens : texts(tokenizer, count)) {
    const auto reference = log_probs(dense, tokens);
    together.add(reference, log_probs(quantized, tokens), tokens);
    one_by_one.add(reference, decoded_log_probs(quantized, tokens), tokens);
  }
  ASSERT_EQ(together.num_positions, static_cast<std::int64_t>(count * (kTextTokens - 1)));
  for (const auto& [difference, what] : {std::pair{together, "whole texts"}, std::pair{one_by_one, "token by token"}}) {
    difference.print(what);
    EXPECT_EQ(difference.num_clear, 0) << what;  // near ties are left to rounding
    EXPECT_LT(difference.kl, 1e-6 * static_cast<double>(difference.num_positions)) << what;
    EXPECT_LT(difference.change, 1e-3 * static_cast<double>(difference.num_positions)) << what;
  }
}

}  // namespace
}  // namespace quiver::eval
