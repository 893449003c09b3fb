// A projection with one trainable or frozen DoRA.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora_linear.h"

namespace quiver::adapters {

/// y = g (W x + scaling B A x) + b,   g = m / ||W + scaling B A||   (Liu et al. 2024, eq. 5)
///
/// with the norm of each row, and m [d_out] trained beside A and B. The norm counts as a constant in the gradient (sec. 4.3),
/// as in PEFT: with u = W x + scaling B A x, du = g dy and dm = sum_t dy_t u_t / norm.
class DoraLinear : public nn::Projection {
 public:
  /// Shares A, B and m with the caller, who may train them. Throws kMismatch unless they fit the base.
  DoraLinear(nn::ProjectionPtr base, LoraPair pair);

  /// By the definition, differentiable: forms W + scaling B A. The norm is of now, whatever update saw.
  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor backward(const torch::Tensor& dy) const override;
  bool has_parameters() const override { return true; }
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const override;
  torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                              nn::RowRecord& record) const override;
  void prepare_backward() const override { base_->prepare_backward(); }
  void add_gradients(const nn::RowRecord& record) const override;
  std::int64_t record_bytes() const override;
  std::int64_t in_features() const override { return base_->in_features(); }
  std::int64_t out_features() const override { return base_->out_features(); }
  torch::Tensor base_weight() const override { return base_->base_weight(); }
  torch::Device device() const override { return base_->device(); }

  /// The factors', and the norm:
  ///   ||W + s B A||^2 = ||W||^2 + 2 s B . (W A^T) + s^2 (B A A^T) . B,   row by row, without forming B A.
  void update() override;

 private:
  nn::ProjectionPtr base_;
  LoraLinear lora_;
  torch::Tensor bias_;            // of the base, [d_out]; undefined if zero
  torch::Tensor squared_weight_;  // ||W||^2 by row
  torch::Tensor norm_, gain_;     // [d_out]; the gain in the dtype of passes
};

}  // namespace quiver::adapters
