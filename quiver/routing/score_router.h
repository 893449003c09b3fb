// Routers that score every adapter by vectors of its own, as Arrow does, in other ways than Arrow.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

#include "quiver/routing/arrow.h"
#include "quiver/routing/group_table.h"
#include "quiver/routing/router.h"
#include "quiver/tensor/placed.h"

namespace quiver::routing {

/// What is done to a token's x before it is scored.
enum class InputNorm {
  kNone,
  kUnit,       ///< x / |x|: the score of a unit vector is a cosine
  kLayerNorm,  ///< (x - mean x) / standard deviation of x, without affine part
};

/// How vectors [N, c, d_in] of the adapters score a token.
struct ScoreRule {
  InputNorm input = InputNorm::kNone;
  bool is_signed = false;  ///< <v, x> as it is, for c = 1; else |V x|, over the c components
};

/// The score of each adapter for each token, [T, N] float32. x [T, d_in] any floating dtype. Throws kMismatch unless vectors are
/// [N, c, d_in] and, for a signed rule, c = 1.
torch::Tensor adapter_scores(const torch::Tensor& x, const torch::Tensor& vectors, const ScoreRule& rule);

/// How much of each chosen adapter.
enum class Weighting {
  kSoftmax,       ///< softmax(score / temperature)
  kEqual,         ///< 1 / k
  kProportional,  ///< score / their sum; for scores that are not negative
};

struct ScoreOptions {
  std::int64_t top_k = 4;
  double temperature = 1;  ///< of kSoftmax
  Weighting weighting = Weighting::kSoftmax;
  ScoreRule rule;
  /// Adapters that the first component alone (|v_1 . x|, Arrow's score) lets through to the full score: LAG's cascade, at
  /// the cost of Arrow plus `shortlist` scores a token. 0: all.
  std::int64_t shortlist = 0;
};

/// Scores by adapter_scores, calibrated if there is a calibration, plus the bias of the token's group; then the top_k
/// largest, the lower index first among equals. With a shortlist, the largest of these alone.
class ScoreRouter : public Router {
 public:
  /// vectors [N, c, d_in]. Throws kMismatch unless all fit, kUsage unless 1 <= top_k <= N, temperature > 0, and the shortlist is
  /// 0 or in [top_k, N]. A shortlist is for unsigned scores without input norm.
  ScoreRouter(const torch::Tensor& vectors, const ScoreOptions& options, const Calibration& calibration = {},
              std::shared_ptr<const GroupTable> bias = nullptr);
  std::int64_t num_adapters() const override { return vectors_.num_adapters(); }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  RoutingDecision choose(torch::Tensor scores, const torch::Tensor& candidates, torch::Device device,
                         std::span<const std::int32_t> groups) const;
  RoutingDecision weigh(const torch::Tensor& scores) const;

  backend::ScoreVectors vectors_;  // [N, c, d_in]
  backend::Shortlist shortlist_;   // by the first components as unit vectors; size 0: none
  ScoreOptions options_;
  tensor::Placed scale_, shift_;
  std::shared_ptr<const GroupTable> bias_;
};

}  // namespace quiver::routing
