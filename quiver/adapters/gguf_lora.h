// LoRA files of llama.cpp: GGUF with general.type "adapter". Free of libtorch, so that it runs under fuzzers.
#pragma once

#include <map>
#include <string>

#include "quiver/io/gguf.h"

namespace quiver::adapters {

/// The factors of one weight, lora_a [r, d_in] and lora_b [d_out, r]; of the embedding, lora_a [V, r] and lora_b [d, r].
struct GgufLoraPair {
  const io::GgufTensor* lora_a = nullptr;
  const io::GgufTensor* lora_b = nullptr;

  std::int64_t rank() const { return lora_b->shape[1]; }
};

struct GgufLora {
  std::string architecture;                   ///< of the base, general.architecture
  double alpha = 0;                           ///< 0 stands for every pair's rank, as in llama.cpp
  std::map<std::string, GgufLoraPair> pairs;  ///< by the weight's name without ".weight": "blk.0.attn_q"
};

/// The name of the embedding.
inline constexpr const char* kGgufEmbedding = "token_embd";

/// Sorts the tensors, which stay in the view. Throws kBadFormat for a file that is no LoRA or is broken, kUnsupported for one that is more
/// than LoRAs.
GgufLora parse_gguf_lora(const io::GgufView& gguf);

}  // namespace quiver::adapters
