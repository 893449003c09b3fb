// What an adapter's update looks like from the side of its input: the vectors that routers score tokens by.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "quiver/adapters/lora.h"

namespace quiver::routing {

/// The singular values and right singular vectors of s B A, largest first. Exact, by QR of both factors and the SVD of an
/// r x r core in float64; on the CPU.
struct RightSingular {
  torch::Tensor values;   ///< [r] float64, s included; 0 beyond the rank of the update
  torch::Tensor vectors;  ///< [r, d_in] float64, unit rows; the component of largest magnitude of each is positive
};
/// Of an update that is 0 the vectors are some orthonormal ones, always the same. Ranks above d_in give d_in vectors. Throws
/// kUsage if the factors hold NaN or infinite values.
RightSingular right_singular(const adapters::LoraPair& pair);

/// Rows sigma_i^gamma v_i of the first `components` singular directions (0: all r): [components, d_in] float32, zero rows
/// beyond the rank. |D x| is the score of one family of routers:
///
///   Arrow    components 1, gamma 0                  (Ostapenko et al. 2024, alg. 2)
///   SpectR   all, gamma 0                           (Fleshman and Van Durme 2025)
///   norm     all, gamma 1: |s B A x| itself         (what SEQR maximises, 2025)
torch::Tensor directions(const adapters::LoraPair& pair, std::int64_t components, double gamma);
/// Those of all adapters by path, [N, c, d_in] with c = components, or the largest rank for 0. Throws as check_alike.
std::map<std::string, torch::Tensor> stacked_directions(std::span<const adapters::LoraAdapter> adapters, std::int64_t components,
                                                        double gamma);

}  // namespace quiver::routing
