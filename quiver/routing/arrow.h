// Arrow: routes a token to the adapters whose update would change it most (Ostapenko et al. 2024,
// algorithm 2).
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quiver/lora/lora.h"
#include "quiver/routing/routed_lora_kernel.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// Top right singular vector of B A, argmax_{|v| = 1} |B A v|: [d_in], float32, unit norm, on the
/// CPU. Exact, by QR of both factors and the SVD of an r x r core in float64. Its sign is arbitrary
/// (callers use |<x, p>|) and fixed so that the component of largest magnitude is positive. The
/// scaling does not matter. Of an update that is 0 every direction is a top one; the result is then
/// some unit vector, always the same. Throws kUsage if the factors hold NaN or infinite values.
torch::Tensor arrow_prototype(const lora::LoraPair& pair);

struct ArrowOptions {
  std::int64_t top_k = 4;  ///< adapters per token
  /// Divides the scores before the softmax; infinity weighs the chosen adapters equally.
  double temperature = 1;
};

/// z = |P x|, the top_k largest (the lower index first among equals), weights softmax(z /
/// temperature) over those. Scores and weights are float32 whatever x's dtype.
class ArrowRouter : public Router {
 public:
  /// prototypes [N, d_in]. Throws kMismatch unless they are a floating matrix with N >= 1, kUsage
  /// unless 1 <= top_k <= N and temperature > 0.
  ArrowRouter(torch::Tensor prototypes, const ArrowOptions& options);

  RoutingDecision route(const torch::Tensor& x) const override;
  std::int64_t num_adapters() const override { return prototypes_.size(0); }
  const torch::Tensor& prototypes() const { return prototypes_; }  ///< [N, d_in] float32

 private:
  torch::Tensor prototypes_;
  ArrowOptions options_;
  PackedPrototypes packed_;
};

}  // namespace quiver::routing
