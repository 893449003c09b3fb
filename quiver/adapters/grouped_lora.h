// Several LoRAs over one projection, each for its own rows of a batch.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/nn/projection.h"

namespace quiver::adapters {

/// Row t of a batch is adapted by the LoRA of its group g(t) (forest::Sequence::group),
///
///   y_t = base(x_t) + scaling B_g(t) A_g(t) dropout(x_t)
///
/// so that examples of different tasks, or of different adapters, are trained in one batch. Rows of a group are consecutive, so
/// the small products are as many as there are groups, and the base's is one; on a GPU all groups' factors are one matrix, and what is not
/// of a row's group is set to zero.
///
/// Shapes: x [T, d_in], A [G, r, d_in] and B [G, d_out, r] float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
/// Passes by rows only (model/forest_pass.h): the groups come with the record. Testing's twin is LoraLinear, group by group.
class GroupedLora : public nn::Projection {
 public:
  GroupedLora(nn::ProjectionPtr base, double scaling, double dropout = 0);

  /// What the next passes compute with; their gradients are zero from here on. Throws kMismatch unless a and b fit the base and each other.
  void set_factors(const torch::Tensor& lora_a, const torch::Tensor& lora_b);
  /// Of the passes since set_factors: [G, r, d_in] and [G, d_out, r].
  const torch::Tensor& gradient_a() const { return gradient_a_; }
  const torch::Tensor& gradient_b() const { return gradient_b_; }

  /// Throws kUnsupported: the rows have no groups.
  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor backward(const torch::Tensor& dy) const override;
  bool has_parameters() const override { return true; }
  /// Throws kInternal for a group without factors.
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

  double scaling() const { return scaling_; }
  double dropout() const { return dropout_; }
  /// As LoraLinear's.
  void set_dropout_mask(torch::Tensor mask) { dropout_mask_ = std::move(mask); }

 private:
  nn::ProjectionPtr base_;
  double scaling_, dropout_;
  torch::Tensor dropout_mask_;
  torch::Tensor a_, scaled_b_t_;  // [G, r, d_in] and [G, r, d_out]
  torch::Tensor gradient_a_, gradient_b_;
};

}  // namespace quiver::adapters
