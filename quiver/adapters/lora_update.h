// One LoRA on a linear map.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora.h"
#include "quiver/nn/linear.h"

namespace quiver::adapters {

/// y = below(x) + scaling * (dropout(x) A^T B^T + c)  (Hu et al. 2021, eq. 3; c is PEFT's lora_bias).
///
/// Shapes: x [T, d_in], A [r, d_in] and B [d_out, r] float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
/// The parameters are A, B and c, and their gradients are of their dtype.
class LoraUpdate final : public nn::TrainableUpdate, public nn::AdditiveUpdate {
 public:
  /// Shares A and B with the caller, who may train them. Throws kMismatch unless they fit the map below.
  LoraUpdate(const nn::Linear& below, LoraPair pair);

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;
  void add_to(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const nn::Rows& rows, const torch::Tensor& y) const override;
  void backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                nn::UpdateRecord& record) const override;
  /// sink.sums are of A, of B, and of c if there is one.
  void add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const override;
  std::int64_t saved_bytes_per_row() const override;
  /// Makes the packed copies of A and B. Call it after they change and before the next pass.
  void update();

  const LoraPair& pair() const { return pair_; }
  /// The mask of the next passes, [T, d_in] of x's dtype, already divided by 1 - p. Undefined: no dropout.
  void set_dropout_mask(torch::Tensor mask) { dropout_mask_ = std::move(mask); }

 private:
  LoraPair pair_;
  torch::Dtype dtype_;  // of the factors in passes: compute_dtype of the map below
  torch::Tensor dropout_mask_;
  torch::Tensor a_, scaled_b_t_;  // as passes read them: [r, d_in] and [r, d_out], rows contiguous
  torch::Tensor scaled_bias_;     // [d_out], or undefined
};

/// The update of a map by a pair: LoRA, or with a magnitude DoRA (dora_update.h). Throws kMismatch for a pair that does not fit.
nn::UpdatePtr update_of(const nn::Linear& below, const LoraPair& pair);
/// The linear maps under the adapter's updates. Throws kMismatch for a path that the model does not have or a pair that does
/// not fit.
nn::LinearMap attach(const nn::LinearMap& linears, const LoraAdapter& adapter);

}  // namespace quiver::adapters
