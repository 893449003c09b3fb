#include "quiver/backend/differentiable.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <algorithm>

namespace quiver::backend {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Lets a node keep the operation alive.
struct OpHolder : torch::CustomClassHolder {
  explicit OpHolder(DifferentiableOp held) : op(std::move(held)) {}
  DifferentiableOp op;
};
using OpHolderPtr = c10::intrusive_ptr<OpHolder>;

struct OpFunction : torch::autograd::Function<OpFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const at::TensorList& inputs, const OpHolderPtr& holder) {
    const auto outputs = holder->op.forward(inputs);
    auto saved = inputs.vec();
    saved.insert(saved.end(), outputs.begin() + 1, outputs.end());
    ctx->saved_data["op"] = c10::IValue::make_capsule(holder);
    ctx->saved_data["num_inputs"] = static_cast<std::int64_t>(inputs.size());
    ctx->save_for_backward(saved);
    return outputs.front();
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["op"].toCapsule();
    const auto num_inputs = static_cast<std::size_t>(ctx->saved_data["num_inputs"].toInt());
    const at::TensorList all(saved);
    auto gradients =
        static_cast<const OpHolder*>(capsule.get())->op.gradient(grads[0].contiguous(), all.slice(0, num_inputs), all.slice(num_inputs));
    gradients.emplace_back();  // of the holder
    return gradients;
  }
};

}  // namespace

torch::Tensor apply(const DifferentiableOp& op, at::TensorList inputs) {
  const bool needs_gradient =
      torch::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), [](const auto& t) { return t.requires_grad(); });
  if (!needs_gradient) return op.forward(inputs).front();
  return OpFunction::apply(inputs, c10::make_intrusive<OpHolder>(op));
}

}  // namespace quiver::backend
