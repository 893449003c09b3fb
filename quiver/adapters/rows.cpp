#include "quiver/adapters/rows.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::adapters {

LoraPair of_rows(const LoraPair& pair, const torch::Tensor& rows) {
  const auto cut = [&](const torch::Tensor& t) { return t.defined() ? t.index_select(0, rows.to(t.device())) : t; };
  return LoraPair(pair.lora_a(), cut(pair.lora_b()), pair.alpha(), pair.use_rslora(), cut(pair.magnitude()), cut(pair.bias()));
}

LoraPair stacked(const std::vector<StackedPart>& parts, std::int64_t num_rows) {
  std::vector<torch::Tensor> lora_a;
  std::int64_t rank = 0;
  for (const auto& part : parts) {
    if (!part.pair) continue;
    lora_a.push_back(part.pair->lora_a());
    rank += part.pair->rank();
  }
  if (lora_a.empty()) fail(ErrorKind::kUsage, "none of {} maps has a LoRA: there is nothing to stack", parts.size());
  const auto is_dora = [](const StackedPart& part) { return part.pair && part.pair->magnitude().defined(); };
  const bool has_magnitude = std::ranges::any_of(parts, is_dora);
  if (has_magnitude && !std::ranges::all_of(parts, is_dora)) {
    fail(ErrorKind::kUnsupported, "{} of {} maps have a DoRA: they are one DoRA only if all have one",
         std::ranges::count_if(parts, is_dora), parts.size());
  }
  const auto a = torch::cat(lora_a);
  auto b = torch::zeros({num_rows, rank}, a.options());
  auto magnitude = has_magnitude ? torch::zeros({num_rows}, a.options()) : torch::Tensor();
  const bool has_bias = std::ranges::any_of(parts, [](const StackedPart& part) { return part.pair && part.pair->bias().defined(); });
  auto bias = has_bias ? torch::zeros({num_rows}, a.options()) : torch::Tensor();
  std::int64_t first = 0;  // of the part's columns
  for (const auto& [pair, rows] : parts) {
    if (!pair) continue;
    b.narrow(1, first, pair->rank()).index_copy_(0, rows, (pair->lora_b() * pair->scaling()).to(b.scalar_type()));
    if (pair->bias().defined()) bias.index_copy_(0, rows, (pair->bias() * pair->scaling()).to(a.scalar_type()));
    if (has_magnitude) magnitude.index_copy_(0, rows, pair->magnitude().to(a.scalar_type()));
    first += pair->rank();
  }
  return LoraPair(a, b, static_cast<double>(rank), /*use_rslora=*/false, magnitude, bias);
}

void complete(std::vector<LoraAdapter>& adapters) {
  std::map<std::string, LoraPair> known;
  for (const auto& adapter : adapters) known.insert(adapter.pairs.begin(), adapter.pairs.end());
  for (auto& adapter : adapters) {
    if (adapter.pairs.size() == known.size()) continue;
    for (const auto& [path, pair] : known) {
      if (adapter.pairs.contains(path)) continue;
      const LoraPair zero(torch::zeros_like(pair.lora_a()), torch::zeros_like(pair.lora_b()), pair.alpha(), pair.use_rslora());
      adapter.pairs.emplace(path, zero);
    }
  }
}

}  // namespace quiver::adapters
