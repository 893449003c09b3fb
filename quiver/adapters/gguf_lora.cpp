#include "quiver/adapters/gguf_lora.h"

#include <cmath>
#include <string_view>

#include "quiver/adapters/peft_config.h"
#include "quiver/base/error.h"

namespace quiver::adapters {
namespace {

void expect_text(const io::GgufView& gguf, const char* key, const char* expected) {
  const auto& value = gguf.require_string(key);
  if (value != expected)
    fail(ErrorKind::kUnsupported, "{}: {} is '{}'; expected '{}', a LoRA file of llama.cpp", gguf.origin(), key, value, expected);
}

void check_pair(const io::GgufView& gguf, const std::string& name, const GgufLoraPair& pair) {
  for (const auto* tensor : {pair.lora_a, pair.lora_b}) {
    if (tensor == nullptr) {
      const auto* lone = pair.lora_a != nullptr ? pair.lora_a : pair.lora_b;
      fail(ErrorKind::kBadFormat, "{}: '{}' lacks its partner (is the file incomplete?)", gguf.origin(), lone->name);
    }
    if (tensor->shape.size() != 2 || tensor->num_elements() == 0) {
      fail(ErrorKind::kBadFormat, "{}: '{}' is no matrix; expected factors [r, d_in] and [d_out, r]", gguf.origin(), tensor->name);
    }
    if (!io::can_dequantize(tensor->type)) {
      fail(ErrorKind::kUnsupported, "{}: '{}' is of type {}, which is not read", gguf.origin(), tensor->name,
           io::gguf_type_name(tensor->type));
    }
  }
  const auto rank_of_a = pair.lora_a->shape[name == kGgufEmbedding ? 1 : 0];
  if (rank_of_a != pair.rank()) {
    fail(ErrorKind::kBadFormat, "{}: '{}' is of rank {} and '{}' of rank {}", gguf.origin(), pair.lora_a->name, rank_of_a,
         pair.lora_b->name, pair.rank());
  }
  if (rank_of_a > kMaxRank)
    fail(ErrorKind::kUnsupported, "{}: '{}' is of rank {}; at most {} is read", gguf.origin(), pair.lora_a->name, rank_of_a, kMaxRank);
}

}  // namespace

GgufLora parse_gguf_lora(const io::GgufView& gguf) {
  expect_text(gguf, "general.type", "adapter");
  expect_text(gguf, "adapter.type", "lora");
  if (gguf.metadata().contains("adapter.alora.invocation_tokens")) {
    fail(ErrorKind::kUnsupported, "{}: adapter.alora.invocation_tokens is there: activated LoRA is not implemented", gguf.origin());
  }
  GgufLora lora{
      .architecture = gguf.require_string("general.architecture"), .alpha = gguf.require_float("adapter.lora.alpha"), .pairs = {}};
  if (!std::isfinite(static_cast<float>(lora.alpha))) {
    fail(ErrorKind::kBadFormat, "{}: adapter.lora.alpha is {}; it must be finite", gguf.origin(), lora.alpha);
  }
  for (const auto& tensor : gguf.tensors()) {
    constexpr std::string_view kA = ".weight.lora_a", kB = ".weight.lora_b";
    const std::string_view name = tensor.name;
    const bool is_a = name.ends_with(kA);
    if (!is_a && !name.ends_with(kB)) {
      fail(ErrorKind::kUnsupported, "{}: tensor '{}' is no LoRA factor; expected only names that end in {} and {}", gguf.origin(), name, kA,
           kB);
    }
    auto& pair = lora.pairs[std::string(name.substr(0, name.size() - kA.size()))];
    (is_a ? pair.lora_a : pair.lora_b) = &tensor;
  }
  if (lora.pairs.empty()) fail(ErrorKind::kBadFormat, "{}: holds no LoRA factors at all", gguf.origin());
  for (const auto& [name, pair] : lora.pairs) check_pair(gguf, name, pair);
  return lora;
}

}  // namespace quiver::adapters
