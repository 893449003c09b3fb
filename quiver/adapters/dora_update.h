// One DoRA on a linear map.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora_update.h"

namespace quiver::adapters {

/// y = g (W x + scaling B A x) + b,   g = m / ||W + scaling B A||   (Liu et al. 2024, eq. 5)
///
/// with the norm of each row, W and b those of the map below, and m [d_out] trained beside A and B. The norm counts as a constant in the
/// gradient (sec. 4.3), as in PEFT: with u = W x + scaling B A x, du = g dy and dm = sum_t dy_t u_t / norm.
class DoraUpdate final : public nn::TrainableUpdate {
 public:
  /// Shares A, B and m with the caller, who may train them. Throws kMismatch unless they fit the map below.
  DoraUpdate(const nn::Linear& below, LoraPair pair);

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;
  void backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                nn::UpdateRecord& record) const override;
  /// sink.sums are of A, of B and of m.
  void add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const override;
  std::int64_t saved_bytes_per_row() const override;
  /// Makes the packed copies of the factors, and the norm:
  ///   ||W + s B A||^2 = ||W||^2 + 2 s B . (W A^T) + s^2 (B A A^T) . B,   row by row, without forming B A.
  /// Call it after the parameters change and before the next pass.
  void update();

 private:
  nn::Linear below_;
  LoraUpdate lora_;
  torch::Tensor bias_;            // of the map below, [d_out]; undefined if zero
  torch::Tensor squared_weight_;  // ||W||^2 by row
  torch::Tensor norm_, gain_;     // [d_out]; the gain in the dtype of passes
};

}  // namespace quiver::adapters
