// Linear maps that read one input and stand in a checkpoint as one map or as several: q, k, v, and gate, up.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "quiver/model/spec.h"
#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// The form in which a model holds such maps. Rows of frozen weights are cut and stacked exactly, so a base takes the form that its
/// adapters were trained on.
enum class Fusion {
  kAsStored,
  kSeparate,  ///< a map for each of q, k, v and of gate, up
  kFused,     ///< one map [q; k; v] and one [gate; up], rows by head in a family that has them so
};
const char* fusion_name(Fusion fusion);

/// A part of a fused map: of every head, `head_dim` rows from `first + head * stride` on.
struct FusedPart {
  const char* name;
  std::int64_t first, stride, num_heads, head_dim;

  std::int64_t num_rows() const { return num_heads * head_dim; }
  /// Its rows in the fused map, in order.
  std::vector<std::int64_t> rows() const;
};

/// A map that a block has as one or as several.
struct FusedMap {
  const char* name;
  std::vector<FusedPart> parts;
  bool has_bias;
  bool is_fused;  ///< whether it is one map in the description

  std::int64_t num_rows() const;
};
/// Those of every block: [q, k, v], and of a gated MLP [gate, up].
std::vector<FusedMap> fused_maps(const ModelSpec& spec);

/// The maps of a block, by name, that read the same rows: sets of two or more.
std::vector<std::vector<std::string>> maps_of_one_input(const ModelSpec& spec);

/// The form in which a model of this description has linear maps at the paths. If they name maps of both forms it is kSeparate: updates of
/// fused maps can be cut. Paths that no form has do not count.
Fusion fusion_for(const ModelSpec& spec, const std::set<std::string>& paths);

/// Changes description and weights, which are named as Model's, to another form. Throws kMismatch for weights that are missing or of
/// another shape than the description says.
void set_fusion(ModelSpec& spec, tensor::TensorMap& weights, Fusion fusion);

}  // namespace quiver::model
