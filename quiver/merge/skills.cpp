#include "quiver/merge/skills.h"

#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::merge {
namespace {

constexpr std::array<const char*, 3> kRules = {"sigmoid", "softmax", "linear"};
constexpr std::array<const char*, 4> kUnits = {"projection", "block", "layer", "model"};

/// The part of a path that names its unit.
std::string unit_name(const std::string& path, MixUnit unit) {
  switch (unit) {
    case MixUnit::kProjection: return path;
    case MixUnit::kBlock: return path.substr(0, path.rfind('.'));
    case MixUnit::kLayer: return path.substr(0, path.find('.', path.find('.') + 1));
    case MixUnit::kModel: return "";
  }
  return path;
}

/// The enumerator of a name.
template <typename T, std::size_t N>
T parse(const std::array<const char*, N>& names, const std::string& text, const char* expected) {
  const auto found = std::ranges::find(names, text);
  if (found == names.end()) fail(ErrorKind::kUsage, "'{}' is not {}", text, expected);
  return static_cast<T>(found - names.begin());
}

}  // namespace

MixRule parse_mix_rule(const std::string& text) {
  return parse<MixRule>(kRules, text, "a rule of mixing; expected sigmoid, softmax or linear");
}

MixUnit parse_mix_unit(const std::string& text) {
  return parse<MixUnit>(kUnits, text, "a granularity; expected projection, block, layer or model");
}

const char* mix_rule_name(MixRule rule) { return kRules.at(static_cast<std::size_t>(rule)); }
const char* mix_unit_name(MixUnit unit) { return kUnits.at(static_cast<std::size_t>(unit)); }

MixUnits mix_units(const adapters::LoraAdapter& adapter, MixUnit unit) {
  MixUnits units;
  std::map<std::string, std::int64_t> numbers;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto [found, is_new] = numbers.emplace(unit_name(path, unit), units.count);
    if (is_new) ++units.count;
    units.of_path.emplace(path, found->second);
  }
  return units;
}

torch::Tensor relaxed_bernoulli(const torch::Tensor& logits, RandomStream& random) {
  auto noise = torch::empty(logits.sizes(), torch::kDouble);
  for (auto& value : tensor::mutable_elements<double>(noise, "noise")) {
    const double u = std::clamp(random.uniform(), 1e-7, 1 - 1e-7);
    value = std::log(u) - std::log1p(-u);
  }
  return logits + noise.to(logits.options());
}

torch::Tensor mix_weights(const torch::Tensor& logits, MixRule rule) {
  switch (rule) {
    case MixRule::kSigmoid: {
      const auto open = logits.sigmoid();
      return open / (open.sum(-1, /*keepdim=*/true) + 1e-8);
    }
    case MixRule::kSoftmax: return logits.softmax(-1);
    case MixRule::kLinear: return logits;
  }
  return logits;
}

torch::Tensor mix_lora_a(const torch::Tensor& lora_a, const torch::Tensor& weights) {
  const auto heads = weights.size(1), rank = lora_a.size(1), width = lora_a.size(2);
  const auto blocks = lora_a.view({lora_a.size(0), rank, heads, width / heads});
  return torch::einsum("tsk,krsd->trsd", {weights, blocks}).reshape({weights.size(0), rank, width});
}

torch::Tensor mix_lora_b(const torch::Tensor& lora_b, const torch::Tensor& weights) {
  const auto heads = weights.size(1), width = lora_b.size(1), rank = lora_b.size(2);
  const auto blocks = lora_b.view({lora_b.size(0), heads, width / heads, rank});
  return torch::einsum("tsk,ksdr->tsdr", {weights, blocks}).reshape({weights.size(0), width, rank});
}

void check_skills(std::span<const adapters::LoraAdapter> skills, const MixShape& shape) {
  check_mixable(skills, Agreement::kFactors);
  if (shape.num_heads < 1) fail(ErrorKind::kUsage, "{} heads; expected 1 or more", shape.num_heads);
  for (const auto& [path, pair] : skills.front().pairs) {
    if (pair.in_features() % shape.num_heads == 0 && pair.out_features() % shape.num_heads == 0) continue;
    fail(ErrorKind::kUsage, "{} heads do not divide the {} inputs and {} outputs of '{}'", shape.num_heads, pair.in_features(),
         pair.out_features(), path);
  }
}

adapters::LoraAdapter mix_skills(std::span<const adapters::LoraAdapter> skills, const torch::Tensor& logits, const MixShape& shape,
                                 const std::string& name) {
  check_skills(skills, shape);
  const auto units = mix_units(skills.front(), shape.unit);
  const auto count = static_cast<std::int64_t>(skills.size());
  if (!logits.sizes().equals({units.count, shape.num_heads, count})) {
    fail(ErrorKind::kMismatch, "logits {} do not fit {} units, {} heads and {} skills", tensor::describe(logits), units.count,
         shape.num_heads, count);
  }
  auto mixed = mixture_of(skills, name);
  const auto weights = mix_weights(logits.to(torch::kDouble), shape.rule);
  for (const auto& [path, first] : skills.front().pairs) {
    std::vector<torch::Tensor> a, b;
    for (const auto& skill : skills) {
      a.push_back(skill.pairs.at(path).lora_a().to(torch::kDouble));
      b.push_back(skill.pairs.at(path).lora_b().to(torch::kDouble));
    }
    const auto mine = weights[units.of_path.at(path)].unsqueeze(0);  // [1, S, K]
    const auto dtype = common_dtype(skills, path);
    mixed.pairs.emplace(path, first.with_tensors({mix_lora_a(torch::stack(a), mine)[0].to(dtype).contiguous(),
                                                  mix_lora_b(torch::stack(b), mine)[0].to(dtype).contiguous()}));
  }
  return mixed;
}

}  // namespace quiver::merge
