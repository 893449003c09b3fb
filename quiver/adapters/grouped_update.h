// Several LoRAs on one linear map, each for its own rows of a batch.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/nn/linear.h"

namespace quiver::adapters {

/// The LoRA of its group g(t) (forest::Sequence::group) adapts row t of a batch,
///
///   y_t = below(x_t) + scaling B_g(t) A_g(t) dropout(x_t)
///
/// so that one batch trains examples of different tasks, or of different adapters. Rows of a group are consecutive, so there are as many
/// small products as groups, and one product of the base. On a GPU all groups' factors are one matrix, and what belongs to other groups
/// is set to zero.
///
/// Shapes: x [T, d_in], A [G, r, d_in] and B [G, d_out, r] float32 (float64 for float64 bases) -> [T, d_out] in x's dtype.
/// The slow twin is LoraUpdate, group by group.
class GroupedUpdate final : public nn::TrainableUpdate {
 public:
  GroupedUpdate(const nn::Linear& below, double scaling);

  /// Sets the factors of the next passes. Throws kMismatch unless a and b fit the map below and each other.
  void set_factors(const torch::Tensor& lora_a, const torch::Tensor& lora_b);

  /// Throws kInternal for a group without factors.
  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;
  void backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                nn::UpdateRecord& record) const override;
  /// sink.sums are of A [G, r, d_in] and of B [G, d_out, r].
  void add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const override;
  std::int64_t saved_bytes_per_row() const override;

  double scaling() const { return scaling_; }
  /// As LoraUpdate's.
  void set_dropout_mask(torch::Tensor mask) { dropout_mask_ = std::move(mask); }

 private:
  std::int64_t in_, out_;
  double scaling_;
  torch::Tensor dropout_mask_;
  torch::Tensor a_, scaled_b_t_;  // [G, r, d_in] and [G, r, d_out]
};

}  // namespace quiver::adapters
