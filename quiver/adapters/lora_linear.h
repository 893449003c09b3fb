// A projection with one trainable or frozen LoRA.
#pragma once

#include <torch/types.h>

#include "quiver/adapters/lora.h"
#include "quiver/nn/projection.h"

namespace quiver::adapters {

/// y = base(x) + scaling * dropout(x) A^T B^T  (Hu et al. 2021, eq. 3), as one autograd node: the gradients of A, B and x
/// are five small products and one large one; x alone is kept, and the base's output is completed in place.
///
/// Shapes: x [T, d_in], A [r, d_in] and B [d_out, r] float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
/// A and B are cast to x's dtype for the products, their gradients come back in their own.
class LoraLinear : public nn::Projection {
 public:
  /// Shares A and B with the caller, who may train them. Throws kMismatch unless they fit the base.
  LoraLinear(nn::ProjectionPtr base, LoraPair pair, double dropout = 0);

  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor backward(const torch::Tensor& dy) const override;
  bool has_parameters() const override { return true; }
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const override;
  torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                              nn::RowRecord& record) const override;
  void prepare_backward() const override { base_->prepare_backward(); }
  void update() override;
  /// To the grad() of A and B, which the owner of the pair must have defined.
  void add_gradients(const nn::RowRecord& record) const override;
  std::int64_t record_bytes() const override;
  std::int64_t in_features() const override { return base_->in_features(); }
  std::int64_t out_features() const override { return base_->out_features(); }
  torch::Tensor base_weight() const override { return base_->base_weight(); }
  torch::Device device() const override { return base_->device(); }

  const LoraPair& pair() const { return pair_; }
  /// The mask of the next forward passes, [T, d_in] of x's dtype, already divided by 1 - p; undefined: no dropout.
  void set_dropout_mask(torch::Tensor mask) { dropout_mask_ = std::move(mask); }
  double dropout() const { return dropout_; }

 private:
  /// The part of the dropout mask for a record's rows; undefined without one.
  torch::Tensor mask_of(const nn::RowRecord& record, std::int64_t num_rows) const;

  nn::ProjectionPtr base_;
  LoraPair pair_;
  double dropout_;
  torch::Tensor dropout_mask_;
  torch::Tensor a_, scaled_b_t_;  // as passes read them: [r, d_in] and [r, d_out], rows contiguous
};

/// The projections with the adapter's pairs attached, as LoRA or, where they have a magnitude, DoRA (dora_linear.h). The pairs
/// must fit (check_fits).
nn::ProjectionMap attach(const nn::ProjectionMap& projections, const LoraAdapter& adapter);

}  // namespace quiver::adapters
