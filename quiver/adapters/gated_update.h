// A frozen LoRA behind a gate that is trained: how Phatgoose learns which tokens an adapter is for.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora.h"
#include "quiver/nn/linear.h"

namespace quiver::adapters {

/// y = below(x) + sigmoid(<v, x>) scaling B A x   (Muqeeth et al. 2024, sec. 3.1); v [d_in] alone is trained.
///
/// Shapes: x [T, d_in], v [d_in], A, B float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
class GatedUpdate final : public nn::TrainableUpdate {
 public:
  /// Shares v with the caller, who trains it. Throws kMismatch unless v and the pair fit the map below, kUnsupported for a DoRA.
  GatedUpdate(const nn::Linear& below, const LoraPair& pair, torch::Tensor gate);

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;
  void backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                nn::UpdateRecord& record) const override;
  /// sink.sums are of v.
  void add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const override;
  std::int64_t saved_bytes_per_row() const override;
  /// Takes over the present v. Call it after v changes and before the next pass.
  void update();

 private:
  torch::Tensor gate_;
  torch::Tensor a_, scaled_b_t_;  // [r, d_in], [r, d_out]
  torch::Tensor reading_;         // A above v, [r + 1, d_in]
};

}  // namespace quiver::adapters
