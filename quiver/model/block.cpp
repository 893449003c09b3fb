#include "quiver/model/block.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/model/fusion.h"

namespace quiver::model {
namespace {

using nn::Slot;

/// Writes the steps of one layer. The backward pass walks a list in reverse, and so adds the gradients of a shared input in the order
/// q, k, v and gate, up.
class BlockCompiler {
 public:
  BlockCompiler(const ModelSpec& spec, std::int64_t layer, const nn::LinearMap& linears, const NormMap& norms)
      : spec_(spec), layer_(layer), linears_(linears), norms_(norms) {}

  std::vector<nn::Step> before() {
    const auto& attention = spec_.block.attention;
    const auto fused = fused_maps(spec_).front();
    const auto input = spec_.block.has_pre_norms() ? norm(kInput, kNormed, spec_.names.attention_norm) : kInput;
    if (fused.is_fused) linear(input, kQkv, fused.name);
    const auto project = [&](Slot out, const FusedPart& part) {
      fused.is_fused ? take(kQkv, out, fused, part) : linear(input, out, part.name);
    };
    const auto in_place_of = [&](Slot projected, Slot result) { return has_qk_norm() || rotates() ? projected : result; };
    project(kValue, fused.parts[2]);
    project(in_place_of(kKeyProjected, kKey), fused.parts[1]);
    norm_and_rotate({kKeyProjected, kKeyNormed, kKey}, spec_.names.key_norm, attention.num_kv_heads);
    project(in_place_of(kQueryProjected, kQuery), fused.parts[0]);
    norm_and_rotate({kQueryProjected, kQueryNormed, kQuery}, spec_.names.query_norm, attention.num_heads);
    return std::move(steps_);
  }

  std::vector<nn::Step> after() {
    const auto& names = spec_.names;
    const auto& block = spec_.block;
    add_branch(kAttended, names.output, kAttentionOutput, kAttentionNormed, names.attention_post_norm, kInput, kMid);
    const Slot source = block.topology == Topology::kSequential ? kMid : kInput;
    const auto input = block.topology == Topology::kParallelShared ? static_cast<Slot>(kNormed)
                       : block.has_pre_norms()                     ? norm(source, kMlpNormed, names.mlp_norm)
                                                                   : source;
    if (block.mlp.is_gated && block.mlp.is_fused) {
      const auto fused = fused_maps(spec_).back();
      linear(input, kGateUp, fused.name);
      take(kGateUp, kUp, fused, fused.parts[1]);
      take(kGateUp, kGate, fused, fused.parts[0]);
    } else {
      linear(input, kUp, names.up);
      if (block.mlp.is_gated) linear(input, kGate, names.gate);
    }
    if (block.mlp.is_gated)
      steps_.push_back(nn::GateStep{kGate, kUp, kActivated, block.mlp.activation});
    else
      steps_.push_back(nn::ActivateStep{kUp, kActivated, block.mlp.activation});
    add_branch(kActivated, names.down, kMlpOutput, kMlpOutputNormed, names.mlp_post_norm, kMid, kOutput);
    if (layer_ + 1 == spec_.num_layers()) steps_.push_back(nn::NormStep{kOutput, kHidden, norms_.at(names.final_norm)});
    return std::move(steps_);
  }

 private:
  bool has_qk_norm() const { return spec_.block.attention.qk_norm != QkNorm::kNone; }
  std::int64_t rope() const { return spec_.layers[static_cast<std::size_t>(layer_)].rope; }
  bool rotates() const { return rope() != kNoRope; }
  std::string path(const char* name) const { return block_path(spec_, layer_, name); }

  void linear(Slot in, Slot out, const char* name, Slot onto = nn::kNoSlot) {
    steps_.push_back(nn::LinearStep{in, out, onto, linears_.at(path(name))});
  }
  void take(Slot in, Slot out, const FusedMap& map, const FusedPart& part) {
    steps_.push_back(nn::TakeStep{.in = in,
                                  .out = out,
                                  .in_width = map.num_rows(),
                                  .first = part.first,
                                  .stride = part.stride,
                                  .num_heads = part.num_heads,
                                  .head_dim = part.head_dim});
  }
  Slot norm(Slot in, Slot out, const char* name, std::int64_t num_groups = 1) {
    steps_.push_back(nn::NormStep{in, out, norms_.at(path(name)), num_groups});
    return out;
  }

  struct Stages {
    Slot projected, normed, result;
  };
  void norm_and_rotate(const Stages& stages, const char* norm_name, std::int64_t num_heads) {
    auto slot = stages.projected;
    if (has_qk_norm()) {
      const bool is_of_head = spec_.block.attention.qk_norm == QkNorm::kHead;
      slot = norm(slot, rotates() ? stages.normed : stages.result, norm_name, is_of_head ? num_heads : 1);
    }
    if (rotates()) steps_.push_back(nn::RotateStep{slot, stages.result, num_heads, rope()});
  }

  /// sum = residual + residual_scale * post_norm(linear(in)).
  void add_branch(Slot in, const char* name, Slot output, Slot normed, const char* post_norm, Slot residual, Slot sum) {
    const auto& block = spec_.block;
    if (!block.has_post_norms() && block.residual_scale == 1) return linear(in, sum, name, residual);
    linear(in, output, name);
    steps_.push_back(nn::AddStep{block.has_post_norms() ? norm(output, normed, post_norm) : output, residual, sum, block.residual_scale});
  }

  const ModelSpec& spec_;
  std::int64_t layer_;
  const nn::LinearMap& linears_;
  const NormMap& norms_;
  std::vector<nn::Step> steps_;
};

}  // namespace

std::vector<std::int64_t> slot_widths(const ModelSpec& spec) {
  const auto q = spec.block.attention.query_width(), kv = spec.block.attention.key_width(), f = spec.block.mlp.intermediate_size;
  std::vector<std::int64_t> widths(kNumBlockSlots, spec.hidden_size);
  for (const auto slot : {kQueryProjected, kQueryNormed, kQuery, kAttended}) widths[slot] = q;
  for (const auto slot : {kKeyProjected, kKeyNormed, kKey, kValue}) widths[slot] = kv;
  for (const auto slot : {kGate, kUp, kActivated}) widths[slot] = f;
  widths[kQkv] = q + 2 * kv;
  widths[kGateUp] = 2 * f;
  return widths;
}

Block compile_block(const ModelSpec& spec, std::int64_t layer, const nn::LinearMap& linears, const NormMap& norms) {
  BlockCompiler compiler(spec, layer, linears, norms);
  Block block;
  block.before = nn::RowProgram(compiler.before());
  block.after = nn::RowProgram(compiler.after());
  if (layer + 1 == spec.num_layers()) block.result = kHidden;
  nn::SlotSet is_written(kNumBlockSlots, false);
  is_written[kAttended] = true;
  for (const auto& step : block.after.steps()) {
    for (const auto slot : reads(step)) {
      if (!is_written[static_cast<std::size_t>(slot)] && std::ranges::find(block.carried, slot) == block.carried.end()) {
        block.carried.push_back(slot);
      }
    }
    is_written[static_cast<std::size_t>(writes(step))] = true;
  }
  return block;
}

}  // namespace quiver::model
