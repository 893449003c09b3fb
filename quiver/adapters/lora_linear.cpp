#include "quiver/adapters/lora_linear.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include "quiver/adapters/dora_linear.h"
#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What a node keeps beside its tensors. The mask is constant, and undefined without dropout, which a node's inputs may
/// not be.
struct LayerHolder : torch::CustomClassHolder {
  LayerHolder(nn::ProjectionPtr p, torch::Tensor m) : base(std::move(p)), mask(std::move(m)) {}
  nn::ProjectionPtr base;
  torch::Tensor mask;
};

struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& a, const torch::Tensor& b,
                               const c10::intrusive_ptr<LayerHolder>& holder, double scaling) {
    const auto& mask = holder->mask;
    const auto read = mask.defined() ? x * mask : x;
    const auto a_cast = a.to(x.scalar_type());
    const auto scaled_b = (b * scaling).to(x.scalar_type());
    const auto z = read.mm(a_cast.t());  // [T, r]
    auto y = holder->base->forward(x);   // [T, d_out]
    y.addmm_(z, scaled_b.t());
    ctx->save_for_backward({x, a_cast, scaled_b, z});
    ctx->saved_data["layer"] = c10::IValue::make_capsule(holder);
    ctx->saved_data["scaling"] = scaling;
    ctx->saved_data["dtype"] = a.scalar_type();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto &a = saved[1], &scaled_b = saved[2], &z = saved[3];
    const auto capsule = ctx->saved_data["layer"].toCapsule();
    const auto& layer = *static_cast<const LayerHolder*>(capsule.get());
    const auto& base = *layer.base;
    const auto& mask = layer.mask;
    const auto dtype = ctx->saved_data["dtype"].toScalarType();
    const auto dy = grads[0].contiguous();
    const auto dz = dy.mm(scaled_b);  // [T, r]
    const auto read = mask.defined() ? x * mask : x;
    const auto da = dz.t().mm(read).to(dtype);                                       // [r, d_in]
    const auto db = dy.t().mm(z).to(dtype) * ctx->saved_data["scaling"].toDouble();  // [d_out, r]
    torch::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = base.backward(dy);  // [T, d_in]
      if (mask.defined()) {
        dx += dz.mm(a) * mask;
      } else {
        dx.addmm_(dz, a);
      }
    }
    return {dx, da, db, torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

LoraLinear::LoraLinear(nn::ProjectionPtr base, LoraPair pair, double dropout)
    : base_(std::move(base)), pair_(std::move(pair)), dropout_(dropout) {
  if (pair_.in_features() != base_->in_features() || pair_.out_features() != base_->out_features()) {
    fail(ErrorKind::kMismatch, "a LoRA with lora_a {} and lora_b {} does not fit a projection of {} to {} features",
         tensor::describe(pair_.lora_a()), tensor::describe(pair_.lora_b()), base_->in_features(), base_->out_features());
  }
  update();
}

void LoraLinear::update() {
  const torch::NoGradGuard no_grad;
  // Factors may be stored in fewer bits than they are multiplied in.
  const auto dtype = pair_.lora_a().scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  a_ = pair_.lora_a().detach().to(dtype).contiguous();
  scaled_b_t_ = (pair_.lora_b().detach().to(dtype) * pair_.scaling()).t().contiguous();
}

torch::Tensor LoraLinear::forward(const torch::Tensor& x) const {
  const auto holder = c10::make_intrusive<LayerHolder>(base_, dropout_mask_);
  return LoraLinearFunction::apply(x, pair_.lora_a(), pair_.lora_b(), holder, pair_.scaling());
}

torch::Tensor LoraLinear::mask_of(const nn::RowRecord& record, std::int64_t num_rows) const {
  if (!dropout_mask_.defined()) return {};
  return record.rows.defined() ? dropout_mask_.index_select(0, record.rows) : dropout_mask_.narrow(0, record.first_row, num_rows);
}

torch::Tensor LoraLinear::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  const auto mask = mask_of(record, x.size(0));
  record.hidden = backend::shrink(mask.defined() ? x * mask : x, a_);  // z [T, r]
  const auto update = backend::expand(record.hidden, scaled_b_t_, onto, x.scalar_type());
  nn::RowRecord below{.first_row = record.first_row, .rows = record.rows, .groups = record.groups};
  return base_->forward_rows(x, update, below);
}

torch::Tensor LoraLinear::backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                        nn::RowRecord& record) const {
  const auto mask = mask_of(record, x.size(0));
  const auto dz = backend::shrink(dy, scaled_b_t_);                               // [T, r]
  record.gradients = {backend::outer_product(dz, mask.defined() ? x * mask : x),  // dA [r, d_in]
                      backend::outer_product(record.hidden, dy)};                 // dB^T / scaling [r, d_out]
  if (!needs_dx) return {};
  if (base_->has_parameters()) fail(ErrorKind::kInternal, "a LoRA is trained over a frozen projection, not over another LoRA");
  torch::Tensor update;
  if (mask.defined()) {
    update = backend::expand(dz, a_, {}, dy.scalar_type()) * mask;
    if (onto.defined()) update += onto;
  } else {
    update = backend::expand(dz, a_, onto, dy.scalar_type());
  }
  return base_->backward_rows(dy, x, update, true, record);
}

void LoraLinear::add_gradients(const nn::RowRecord& record) const {
  pair_.lora_a().mutable_grad().add_(record.gradients.at(0));
  pair_.lora_b().mutable_grad().add_(record.gradients.at(1).t(), pair_.scaling());
}

std::int64_t LoraLinear::record_bytes() const { return pair_.rank() * static_cast<std::int64_t>(sizeof(float)); }

torch::Tensor LoraLinear::backward(const torch::Tensor& dy) const {
  const auto scaled_b = (pair_.lora_b() * pair_.scaling()).to(dy.scalar_type());
  return base_->backward(dy).addmm(dy.mm(scaled_b), pair_.lora_a().to(dy.scalar_type()));
}

nn::ProjectionMap attach(const nn::ProjectionMap& projections, const LoraAdapter& adapter) {
  auto adapted = projections;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto found = adapted.find(path);
    if (found == adapted.end()) {
      fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the base model does not have", adapter.name, path);
    }
    if (pair.magnitude().defined()) {
      found->second = std::make_shared<DoraLinear>(found->second, pair);
    } else {
      found->second = std::make_shared<LoraLinear>(found->second, pair, adapter.options.dropout);
    }
  }
  return adapted;
}

}  // namespace quiver::adapters
