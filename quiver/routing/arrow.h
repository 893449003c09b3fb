// Arrow: routes a token to the adapters whose update would change it most (Ostapenko et al. 2024,
// algorithm 2).
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

#include "quiver/adapters/lora.h"
#include "quiver/routing/group_table.h"
#include "quiver/routing/router.h"
#include "quiver/tensor/placed.h"

namespace quiver::routing {

/// Top right singular vector of B A, argmax_{|v| = 1} |B A v|: [d_in], float32, unit norm, on the
/// CPU. Exact, by QR of both factors and the SVD of an r x r core in float64. Its sign is arbitrary
/// (callers use |<x, p>|) and fixed so that the component of largest magnitude is positive. The
/// scaling does not matter. Of an update that is 0 every direction is a top one; the result is then
/// some unit vector, always the same. Throws kUsage if the factors hold NaN or infinite values.
torch::Tensor arrow_prototype(const adapters::LoraPair& pair);

struct ArrowOptions {
  std::int64_t top_k = 4;  ///< adapters per token
  /// Divides the scores before the softmax; infinity weighs the chosen adapters equally.
  double temperature = 1;
};

/// What the scores of each adapter are on text of no task in particular, at one projection: adapters differ in how large
/// their scores are on any text, so that without this the raw score prefers some of them always.
struct Calibration {
  torch::Tensor mean, deviation;  ///< [N] float32; deviation > 0
};

/// z = |P x|, or calibrated z = (|P x| - mean) / deviation, and + the bias of the token's group; the top_k largest (the
/// lower index first among equals), weights softmax(z / temperature) over those. Scores and weights are float32 whatever
/// x's dtype.
class ArrowRouter : public Router {
 public:
  /// prototypes [N, d_in]; `bias` is a table of N columns. Throws kMismatch unless the prototypes are a floating matrix with
  /// N >= 1 and the rest fits them, kUsage unless 1 <= top_k <= N and temperature > 0.
  ArrowRouter(const torch::Tensor& prototypes, const ArrowOptions& options, const Calibration& calibration = {},
              std::shared_ptr<const GroupTable> bias = nullptr);

  std::int64_t num_adapters() const override { return prototypes_.num_adapters(); }
  const torch::Tensor& prototypes() const { return prototypes_.rows.on_cpu(); }  ///< [N, d_in] float32

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  backend::ScoreVectors prototypes_;
  ArrowOptions options_;
  tensor::Placed scale_, shift_;  ///< [N]: z = score * scale + shift; undefined without calibration
  std::shared_ptr<const GroupTable> bias_;
};

}  // namespace quiver::routing
