// The part of a transformer block that works row by row, as a list of steps over numbered tensors.
//
// A step reads slots and writes one. The forward pass walks the list, the backward pass walks it in reverse. Everything that a training
// step keeps in memory follows from what the steps' gradients read.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "quiver/backend/ops.h"
#include "quiver/nn/linear.h"

namespace quiver::nn {

/// The number of a tensor [T, width] that holds some rows of a batch.
using Slot = std::int32_t;
inline constexpr Slot kNoSlot = -1;
/// A set of slots, by number.
using SlotSet = std::vector<bool>;

/// A frozen norm: backend::layer_norm where there is a bias, else backend::rms_norm.
struct Norm {
  torch::Tensor weight;  ///< [width / num_groups] in compute_dtype
  torch::Tensor bias;
  double epsilon;
};
/// out = norm(in), of each of num_groups parts of a row on its own.
struct NormStep {
  Slot in, out;
  Norm norm;
  std::int64_t num_groups = 1;
};
/// out = onto + linear(in).
struct LinearStep {
  Slot in, out;
  Slot onto = kNoSlot;
  Linear linear;
};
/// out = some columns of in: of each head h, the head_dim columns from first + h * stride on.
struct TakeStep {
  Slot in, out;
  std::int64_t in_width, first, stride, num_heads, head_dim;
};
/// out = in with every head rotated by its row's position (backend::rotate_into). The slot of `out` may hold the tensor to write.
struct RotateStep {
  Slot in, out;
  std::int64_t num_heads;
  std::int64_t rope = 0;  ///< index in RowContext::angles
};
/// out = activation(gate) * up.
struct GateStep {
  Slot gate, up, out;
  backend::Activation activation = backend::Activation::kSilu;
};
/// out = activation(in).
struct ActivateStep {
  Slot in, out;
  backend::Activation activation;
};
/// out = onto + scale * in.
struct AddStep {
  Slot in, onto, out;
  double scale;
};
using Step = std::variant<NormStep, LinearStep, TakeStep, RotateStep, GateStep, ActivateStep, AddStep>;

/// The slots that a step reads, and the one that it writes.
std::vector<Slot> reads(const Step& step);
Slot writes(const Step& step);
/// Whether the step has parameters that are trained.
bool is_trained(const Step& step);

/// Steps in the order of the forward pass. Immutable.
class RowProgram {
 public:
  RowProgram() = default;
  explicit RowProgram(std::vector<Step> steps);
  const std::vector<Step>& steps() const { return steps_; }
  /// The slots that no step after the i-th reads, but the i-th does.
  const std::vector<Slot>& last_reads(std::size_t i) const { return last_reads_[i]; }

 private:
  std::vector<Step> steps_;
  std::vector<std::vector<Slot>> last_reads_;
};

/// Adds to `requires_grad` every slot that depends on a trained parameter: autograd's rule.
void mark_requires_grad(const RowProgram& program, SlotSet& requires_grad);
/// The slots whose values run_backward reads. A slot that an activation writes is computed again instead.
SlotSet saved_slots(const RowProgram& program, const SlotSet& requires_grad);

/// Rotary angles of rows, [T, n/2] in compute_dtype.
struct Angles {
  torch::Tensor cosine, sine;
};
/// Which rows a program computes, and their angles for each kind of rotation.
struct RowContext {
  Rows rows;
  std::vector<Angles> angles;
};

/// What one step leaves for its backward pass.
struct StepRecord {
  torch::Tensor mean, inverse;  ///< of a NormStep: 1 / rms of each group, or the mean and 1 / deviation
  LinearRecord linear;          ///< of a LinearStep
};
/// The tensors of some rows while a program runs over them.
struct RowState {
  std::vector<torch::Tensor> slots;
  std::vector<StepRecord> records;  ///< by step
};

/// Runs the program over the slots. A slot not in `keep` is released after the last step that reads it.
void run_forward(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& keep);
/// Runs the program once more for its backward pass: without the steps that neither `keep` nor a record needs.
void run_again(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& keep);
/// Walks the program in reverse: from the gradients of the slots that it wrote to those of the slots that it read. `gradients` has an
/// entry for every slot; one is undefined where it is zero. Only gradients of slots in `requires_grad` are computed. Leaves the gradients
/// of trained parameters in the state's records.
void run_backward(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& requires_grad,
                  std::vector<torch::Tensor>& gradients);
/// Adds the gradients that run_backward left to the sums of the trained updates. Not thread-safe; call it part by part in order.
void add_gradients(const RowProgram& program, const RowState& state);

}  // namespace quiver::nn
