// A frozen LoRA behind a gate that is trained: how Phatgoose learns which tokens an adapter is for.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora.h"
#include "quiver/nn/projection.h"

namespace quiver::adapters {

/// y = base(x) + sigmoid(<v, x>) scaling B A x   (Muqeeth et al. 2024, sec. 3.1); v [d_in] alone is trained.
///
/// Shapes: x [T, d_in], v [d_in], A, B float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
class GatedLora : public nn::Projection {
 public:
  /// Shares v with the caller, who trains it. Throws kMismatch unless v and the pair fit the base, kUnsupported for a DoRA.
  GatedLora(nn::ProjectionPtr base, const LoraPair& pair, torch::Tensor gate);

  /// By the definition, differentiable in x and v.
  torch::Tensor forward(const torch::Tensor& x) const override;
  /// Throws kUnsupported: what it is depends on x.
  torch::Tensor backward(const torch::Tensor& dy) const override;
  bool has_parameters() const override { return true; }
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const override;
  torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                              nn::RowRecord& record) const override;
  void prepare_backward() const override { base_->prepare_backward(); }
  void update() override;
  /// To v.grad(), which the owner must have defined.
  void add_gradients(const nn::RowRecord& record) const override;
  std::int64_t record_bytes() const override;
  std::int64_t in_features() const override { return base_->in_features(); }
  std::int64_t out_features() const override { return base_->out_features(); }
  torch::Tensor base_weight() const override { return base_->base_weight(); }
  torch::Device device() const override { return base_->device(); }

 private:
  nn::ProjectionPtr base_;
  torch::Tensor gate_;
  torch::Tensor a_, scaled_b_t_;  // [r, d_in], [r, d_out]
  torch::Tensor reading_;         // A above v, [r + 1, d_in]
};

}  // namespace quiver::adapters
