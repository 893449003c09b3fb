#include "quiver/model/fusion.h"

#include <torch/utils.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/model/families.h"
#include "quiver/model/take_weight.h"

namespace quiver::model {
namespace {

/// What stands behind "<blocks>.<layer>." in a path; empty for other paths.
std::string_view name_in_block(const ModelSpec& spec, std::string_view path) {
  const std::string_view blocks = spec.names.blocks;
  if (!path.starts_with(blocks) || !path.substr(blocks.size()).starts_with('.')) return {};
  const auto dot = path.find('.', blocks.size() + 1);
  return dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
}

/// A weight or bias, taken out of the map.
torch::Tensor take(tensor::TensorMap& weights, const std::string& name, torch::IntArrayRef shape) {
  auto values = take_weight(weights, name, shape);
  if (!values.defined()) fail(ErrorKind::kMismatch, "the base model lacks the tensor '{}' (an incomplete download?)", name);
  return values;
}

std::vector<std::int64_t> shape_of(std::int64_t num_rows, const ModelSpec& spec, std::string_view kind) {
  if (kind == ".bias") return {num_rows};
  return {num_rows, spec.hidden_size};
}

/// One kind of a fused map's tensors (".weight") in one layer.
void cut(const ModelSpec& spec, std::int64_t layer, const FusedMap& map, const char* kind, tensor::TensorMap& weights) {
  const auto whole = take(weights, block_path(spec, layer, map.name) + kind, shape_of(map.num_rows(), spec, kind));
  for (const auto& part : map.parts) {
    weights.emplace(block_path(spec, layer, part.name) + kind, whole.index_select(0, torch::tensor(part.rows(), torch::kLong)));
  }
}

void stack(const ModelSpec& spec, std::int64_t layer, const FusedMap& map, const char* kind, tensor::TensorMap& weights) {
  std::vector<torch::Tensor> parts;
  for (const auto& part : map.parts) {
    parts.push_back(take(weights, block_path(spec, layer, part.name) + kind, shape_of(part.num_rows(), spec, kind)));
  }
  const auto has_form = [&](const torch::Tensor& part) {
    return part.scalar_type() == parts.front().scalar_type() && part.sizes().slice(1).equals(parts.front().sizes().slice(1));
  };
  if (!std::ranges::all_of(parts, has_form)) {
    fail(ErrorKind::kUnsupported,
         "the parts of '{}' are stored in different formats and cannot be stacked as they are; use `base_weights=dense`",
         block_path(spec, layer, map.name));
  }
  weights.emplace(block_path(spec, layer, map.name) + kind, torch::cat(parts));
}

}  // namespace

const char* fusion_name(Fusion fusion) {
  switch (fusion) {
    case Fusion::kAsStored: return "as stored";
    case Fusion::kSeparate: return "separate";
    case Fusion::kFused: return "fused";
  }
  return "";
}

std::vector<std::int64_t> FusedPart::rows() const {
  std::vector<std::int64_t> rows;
  for (std::int64_t head = 0; head < num_heads; ++head) {
    for (std::int64_t i = 0; i < head_dim; ++i) rows.push_back(first + head * stride + i);
  }
  return rows;
}

std::int64_t FusedMap::num_rows() const {
  std::int64_t count = 0;
  for (const auto& part : parts) count += part.num_rows();
  return count;
}

std::vector<FusedMap> fused_maps(const ModelSpec& spec) {
  const auto& names = spec.names;
  const auto& attention = spec.block.attention;
  const auto& mlp = spec.block.mlp;
  const auto q = attention.query_width(), kv = attention.key_width(), head = attention.head_dim, f = mlp.intermediate_size;
  const bool is_by_head = family_of(spec).has_qkv_by_head;
  const auto part = [&](const char* name, std::int64_t num_heads, std::int64_t first, std::int64_t first_of_head) {
    return FusedPart{name, is_by_head ? first_of_head : first, is_by_head ? 3 * head : head, num_heads, head};
  };
  std::vector<FusedMap> maps = {{.name = names.qkv,
                                 .parts = {part(names.query, attention.num_heads, 0, 0), part(names.key, attention.num_kv_heads, q, head),
                                           part(names.value, attention.num_kv_heads, q + kv, 2 * head)},
                                 .has_bias = attention.has_qkv_bias,
                                 .is_fused = attention.rows != QkvRows::kSeparate}};
  if (mlp.is_gated) {
    maps.push_back({.name = names.gate_up,
                    .parts = {{names.gate, 0, f, 1, f}, {names.up, f, f, 1, f}},
                    .has_bias = mlp.has_bias,
                    .is_fused = mlp.is_fused});
  }
  return maps;
}

std::vector<std::vector<std::string>> maps_of_one_input(const ModelSpec& spec) {
  std::vector<std::vector<std::string>> inputs(2);  // of attention, of the MLP
  const auto maps = fused_maps(spec);
  const auto add = [](const FusedMap& map, std::vector<std::string>& names) {
    if (map.is_fused) return names.emplace_back(map.name), void();
    for (const auto& part : map.parts) names.emplace_back(part.name);
  };
  add(maps[0], inputs[0]);
  if (maps.size() > 1)
    add(maps[1], inputs[1]);
  else
    inputs[1].emplace_back(spec.names.up);
  const auto& block = spec.block;
  const bool is_one = block.topology == Topology::kParallelShared || (block.topology == Topology::kParallel && !block.has_pre_norms());
  if (is_one) inputs[0].insert(inputs[0].end(), inputs[1].begin(), inputs[1].end());
  if (is_one) inputs[1].clear();
  std::erase_if(inputs, [](const auto& names) { return names.size() < 2; });
  return inputs;
}

Fusion fusion_for(const ModelSpec& spec, const std::set<std::string>& paths) {
  std::set<std::string_view> named;
  for (const auto& path : paths) named.insert(name_in_block(spec, path));
  bool names_parts = false, is_as_stored = true;
  for (const auto& map : fused_maps(spec)) {
    const bool names_map = named.contains(map.name);
    const bool names_part = std::ranges::any_of(map.parts, [&](const auto& part) { return named.contains(part.name); });
    names_parts |= names_part;
    is_as_stored &= map.is_fused ? !names_part : !names_map;
  }
  if (is_as_stored) return Fusion::kAsStored;
  return names_parts ? Fusion::kSeparate : Fusion::kFused;
}

void set_fusion(ModelSpec& spec, tensor::TensorMap& weights, Fusion fusion) {
  if (fusion == Fusion::kAsStored) return;
  const bool is_wanted_fused = fusion == Fusion::kFused;
  for (const auto& map : fused_maps(spec)) {
    if (map.is_fused == is_wanted_fused) continue;
    for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
      for (const char* kind : {".weight", ".bias"}) {
        if (kind == std::string_view(".bias") && !map.has_bias) continue;
        is_wanted_fused ? stack(spec, layer, map, kind, weights) : cut(spec, layer, map, kind, weights);
      }
    }
  }
  auto& rows = spec.block.attention.rows;
  if (is_wanted_fused != (rows != QkvRows::kSeparate))
    rows = !is_wanted_fused ? QkvRows::kSeparate : family_of(spec).has_qkv_by_head ? QkvRows::kByHead : QkvRows::kStacked;
  spec.block.mlp.is_fused = is_wanted_fused && spec.block.mlp.is_gated;
}

}  // namespace quiver::model
