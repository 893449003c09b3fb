// How GGUF files name the tensors of a model and order their rows: one table for reading and for writing.
#pragma once

#include <string>
#include <vector>

#include "quiver/model/spec.h"

namespace quiver::model {

/// The order of rows in a GGUF file, of a weight and of its bias alike.
enum class GgufRows {
  kSame,
  kPaired,  ///< of each head, the members of a rotary pair side by side: [heads, E / 2, 2], where models have [heads, 2, E / 2]
  kByPart,  ///< all of q, then k, then v: [3, heads, E], where models have [heads, 3, E]
};

/// A norm, an embedding or a linear map of a model. Both names are without ".weight" and ".bias".
struct GgufSlot {
  std::string gguf;  ///< "blk.3.attn_q"
  std::string name;  ///< as Model takes it: "layers.3.self_attn.q_proj"
  GgufRows rows = GgufRows::kSame;
  std::int64_t num_heads = 0;  ///< of kPaired and kByPart
};

/// The slots of a model of this description, in the order of GGUF files. A file may lack some: the head is absent where it is tied, and a
/// model need not have all norms.
std::vector<GgufSlot> gguf_slots(const ModelSpec& spec);

/// For a description with separate q, k and v: what stands in a file that has them as one tensor, in its order.
struct GgufFusedSlot {
  std::string gguf;  ///< "blk.3.attn_qkv"
  std::string name;  ///< "layers.3.self_attn.qkv_proj"
  struct Part {
    GgufSlot slot;
    std::int64_t num_rows;
  };
  std::vector<Part> parts;
};
std::vector<GgufFusedSlot> gguf_fused_slots(const ModelSpec& spec);

}  // namespace quiver::model
