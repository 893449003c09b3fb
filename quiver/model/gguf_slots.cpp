#include "quiver/model/gguf_slots.h"

#include "quiver/base/error.h"
#include "quiver/model/families.h"

namespace quiver::model {
namespace {

/// A slot of a block: the name in a file after "blk.<layer>.", and the family's.
struct Row {
  const char* gguf;
  const char* TensorNames::*name;
};
constexpr Row kBlock[] = {{"attn_norm", &TensorNames::attention_norm},
                          {"attn_qkv", &TensorNames::qkv},
                          {"attn_q", &TensorNames::query},
                          {"attn_k", &TensorNames::key},
                          {"attn_v", &TensorNames::value},
                          {"attn_q_norm", &TensorNames::query_norm},
                          {"attn_k_norm", &TensorNames::key_norm},
                          {"attn_output", &TensorNames::output},
                          {"post_attention_norm", &TensorNames::attention_post_norm},
                          {"ffn_norm", &TensorNames::mlp_norm},
                          {"ffn_gate", &TensorNames::gate},
                          {"ffn_up", &TensorNames::up},
                          {"ffn_up", &TensorNames::gate_up},  // instead of gate and up
                          {"ffn_down", &TensorNames::down},
                          {"post_ffw_norm", &TensorNames::mlp_post_norm}};

bool is_used(const ModelSpec& spec, const char* TensorNames::*name) {
  const bool is_fused = spec.block.attention.rows != QkvRows::kSeparate;
  if (spec.names.*name == nullptr) return false;
  if (name == &TensorNames::qkv) return is_fused;
  if (name == &TensorNames::query || name == &TensorNames::key || name == &TensorNames::value) return !is_fused;
  if (name == &TensorNames::gate_up) return spec.block.mlp.is_fused;
  if (name == &TensorNames::gate || name == &TensorNames::up) return !spec.block.mlp.is_fused;
  return true;
}

GgufSlot block_slot(const ModelSpec& spec, std::int64_t layer, const Row& row) {
  const auto& attention = spec.block.attention;
  GgufSlot slot{format("blk.{}.{}", layer, row.gguf), block_path(spec, layer, spec.names.*row.name)};
  const bool is_paired = family_of(spec).has_paired_gguf_rows;
  if (row.name == &TensorNames::query && is_paired) {
    slot.rows = GgufRows::kPaired;
    slot.num_heads = attention.num_heads;
  } else if (row.name == &TensorNames::key && is_paired) {
    slot.rows = GgufRows::kPaired;
    slot.num_heads = attention.num_kv_heads;
  } else if (row.name == &TensorNames::qkv && attention.rows == QkvRows::kByHead) {
    slot.rows = GgufRows::kByPart;
    slot.num_heads = attention.num_heads;
  }
  return slot;
}

}  // namespace

std::vector<GgufSlot> gguf_slots(const ModelSpec& spec) {
  std::vector<GgufSlot> slots = {{"token_embd", spec.names.embedding}};
  if (spec.edges.has_positions) slots.push_back({"position_embd", spec.names.positions});
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    for (const auto& row : kBlock) {
      if (is_used(spec, row.name)) slots.push_back(block_slot(spec, layer, row));
    }
  }
  slots.push_back({"output_norm", spec.names.final_norm});
  slots.push_back({"output", spec.names.head});
  return slots;
}

std::vector<GgufFusedSlot> gguf_fused_slots(const ModelSpec& spec) {
  const auto& attention = spec.block.attention;
  std::vector<GgufFusedSlot> slots;
  if (attention.rows != QkvRows::kSeparate) return slots;
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    const auto part = [&](const char* gguf, const char* TensorNames::*name, std::int64_t num_rows) {
      return GgufFusedSlot::Part{block_slot(spec, layer, {gguf, name}), num_rows};
    };
    slots.push_back(
        {format("blk.{}.attn_qkv", layer),
         block_path(spec, layer, spec.names.qkv),
         {part("attn_q", &TensorNames::query, attention.query_width()), part("attn_k", &TensorNames::key, attention.key_width()),
          part("attn_v", &TensorNames::value, attention.key_width())}});
  }
  return slots;
}

}  // namespace quiver::model
