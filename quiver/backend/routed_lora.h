// Choosing adapters for each token, and adding the updates of those chosen.
//
// What is computed for a token on the CPU in float32 and bfloat16 depends on that token alone, bit for bit.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quiver/tensor/placed.h"

namespace quiver::backend {

namespace cpu {
struct CoarseScores;
}

/// For each token k adapters and their weights.
struct Chosen {
  torch::Tensor index;   ///< [T, k] int64, in [0, N)
  torch::Tensor weight;  ///< [T, k] float32
};

/// The top_k largest scores of each token [T, N], the lower index first among equals.
struct TopScores {
  torch::Tensor index;   ///< [T, k] int64
  torch::Tensor scores;  ///< [T, k]
};
TopScores top_scores(const torch::Tensor& scores, std::int64_t top_k);
/// softmax(score / temperature) over the top_k largest; an infinite temperature weighs them equally.
Chosen choose_softmax(const torch::Tensor& scores, std::int64_t top_k, double temperature);

/// Vectors as this CPU's column reads them; the column's source says how. Undefined where it reads the rows.
struct ScoreLayout {
  torch::Tensor packed;
  std::shared_ptr<const cpu::CoarseScores> coarse;
};
/// Vectors that tokens are scored by, of N adapters. Immutable; copies share the tensors.
struct ScoreVectors {
  tensor::Placed rows;  ///< [N, d_in] (pack_prototypes) or [N, c, d_in] (pack_vectors), float32
  ScoreLayout layout;
  std::int64_t num_adapters() const { return rows.on_cpu().size(0); }
};
/// Of prototypes [N, d_in], for route. Any floating dtype and device.
ScoreVectors pack_prototypes(const torch::Tensor& prototypes);
/// Of vectors [N, c, d_in], for shrink_routed. Any floating dtype and device.
ScoreVectors pack_vectors(const torch::Tensor& vectors);

/// What is done to the scores before the largest are chosen: score_n scale_n + shift_n + bias_gn, g the token's group.
struct ScoreAdjustment {
  tensor::Placed scale, shift;           ///< [N] float32; undefined: 1 and 0
  std::span<const float> bias;           ///< [groups, N]; empty: 0
  std::span<const std::int32_t> groups;  ///< [T]; empty: all of group 0
};
/// The top_k adapters of the largest scores |<x, p_n>|, adjusted, for each token of x [T, d_in], the lower index first among equals, and
/// softmax(score / temperature) over these. Scores and weights are float32 whatever x's dtype. The decision lives on x's device. Throws
/// kInternal for arguments that do not fit.
Chosen route(const ScoreVectors& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
             const ScoreAdjustment& adjustment = {});

/// <v, x_t> for the c vectors v of each adapter that `index` [T, k] names for token t, [T, k, c] float32.
torch::Tensor shrink_routed(const ScoreVectors& vectors, const torch::Tensor& x, const torch::Tensor& index);

/// Who scores by several vectors asks the prototypes first.
struct Shortlist {
  ScoreVectors prototypes, vectors;  ///< [N, d_in] and [N, c, d_in]
  std::int64_t size = 0;             ///< adapters of a token that the prototypes let through
};
/// As route, by ||(<v_nc, x>)_c|| of the `size` adapters of the largest |<x, p_n>| alone. The adjustment is that of the former.
Chosen route_shortlisted(const Shortlist& by, const torch::Tensor& x, std::int64_t top_k, double temperature,
                         const ScoreAdjustment& adjustment = {});

/// The factors of one adapter at a projection: delta_w = scaling B A, lora_a [r, d_in], lora_b [d_out, r].
struct LoraFactors {
  torch::Tensor lora_a, lora_b;
  double scaling = 1;
};

/// All adapters of a projection in the layout of one column; the column's source says what the tensors hold. All undefined where the
/// column reads the factors.
struct RoutedLayout {
  torch::Tensor lora_a, lora_b, scaling, owner;
};
/// All adapters of one projection, for use on one device. Immutable; copies share the tensors.
struct RoutedAdapters {
  std::vector<LoraFactors> factors;  ///< as they were given
  RoutedLayout layout;
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
};
/// At least one adapter; all have equal d_in and d_out. The factors may be on any device.
RoutedAdapters pack_adapters(std::vector<LoraFactors> factors, torch::Device device);

/// What the weights of a token's adapters mix. Both cost the same.
enum class Combine {
  kParams,   ///< the factors, as the paper does: s (sum_i w_i B_i)(sum_i w_i A_i) x
  kOutputs,  ///< the updates, as PEFT does: sum_i w_i s_i B_i A_i x
};
/// y [T, d_out] += the updates of the chosen adapters of x [T, d_in], summed in float32 (float64 for float64 x) and rounded once to x's
/// dtype. y is contiguous, of x's dtype and device, which is that of the adapters. kParams wants adapters of one rank and one scaling. On
/// the CPU an adapter that is not chosen is not read. Throws kInternal for arguments that do not fit.
void add_routed(const RoutedAdapters& adapters, const torch::Tensor& x, const Chosen& chosen, Combine combine, const torch::Tensor& y);

}  // namespace quiver::backend
