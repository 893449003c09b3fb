#include "quiver/model/block.h"

#include <torch/utils.h>

#include <algorithm>

namespace quiver::model {

std::vector<std::int64_t> slot_widths(const ModelSpec& spec) {
  const auto d = spec.hidden_size, q = spec.block.attention.query_width(), kv = spec.block.attention.key_width(),
             f = spec.block.mlp.intermediate_size;
  std::vector<std::int64_t> widths(kNumBlockSlots, d);
  for (const auto slot : {kQueryProjected, kQuery, kAttended}) widths[slot] = q;
  for (const auto slot : {kKeyProjected, kKey, kValue}) widths[slot] = kv;
  for (const auto slot : {kGate, kUp, kActivated}) widths[slot] = f;
  return widths;
}

Block compile_block(const ModelSpec& spec, std::int64_t layer, const nn::LinearMap& linears, const tensor::TensorMap& norms) {
  using nn::GateStep, nn::LinearStep, nn::NormStep, nn::RotateStep;
  const auto& names = spec.names;
  const auto& attention = spec.block.attention;
  const auto linear = [&](nn::Slot in, nn::Slot out, const char* name, nn::Slot onto = nn::kNoSlot) {
    return LinearStep{in, out, onto, linears.at(block_path(spec, layer, name))};
  };
  const auto norm = [&](nn::Slot in, nn::Slot out, const std::string& path) {
    return NormStep{in, out, norms.at(path), spec.block.norm.epsilon};
  };
  // The backward pass walks a list in reverse, and so adds the gradients of a shared input in the order q, k, v and gate, up.
  std::vector<nn::Step> before = {norm(kInput, kNormed, block_path(spec, layer, names.attention_norm)),
                                  linear(kNormed, kValue, names.value),
                                  linear(kNormed, kKeyProjected, names.key),
                                  RotateStep{kKeyProjected, kKey, attention.num_kv_heads},
                                  linear(kNormed, kQueryProjected, names.query),
                                  RotateStep{kQueryProjected, kQuery, attention.num_heads}};
  std::vector<nn::Step> after = {linear(kAttended, kMid, names.output, /*onto=*/kInput),
                                 norm(kMid, kMlpNormed, block_path(spec, layer, names.mlp_norm)),
                                 linear(kMlpNormed, kUp, names.up),
                                 linear(kMlpNormed, kGate, names.gate),
                                 GateStep{kGate, kUp, kActivated},
                                 linear(kActivated, kOutput, names.down, /*onto=*/kMid)};
  Block block;
  if (layer + 1 == spec.num_layers) {
    after.push_back(norm(kOutput, kHidden, names.final_norm));
    block.result = kHidden;
  }
  nn::SlotSet is_written(kNumBlockSlots, false);
  is_written[kAttended] = true;
  for (const auto& step : after) {
    for (const auto slot : reads(step)) {
      if (!is_written[static_cast<std::size_t>(slot)] && std::ranges::find(block.carried, slot) == block.carried.end()) {
        block.carried.push_back(slot);
      }
    }
    is_written[static_cast<std::size_t>(writes(step))] = true;
  }
  block.before = nn::RowProgram(std::move(before));
  block.after = nn::RowProgram(std::move(after));
  return block;
}

}  // namespace quiver::model
