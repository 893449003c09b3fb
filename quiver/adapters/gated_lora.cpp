#include "quiver/adapters/gated_lora.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {

GatedLora::GatedLora(nn::ProjectionPtr base, const LoraPair& pair, torch::Tensor gate) : base_(std::move(base)), gate_(std::move(gate)) {
  if (pair.magnitude().defined()) fail(ErrorKind::kUnsupported, "a gate is of a LoRA's update, which a DoRA is not");
  if (pair.in_features() != in_features() || pair.out_features() != out_features() || !gate_.sizes().equals({in_features()})) {
    fail(ErrorKind::kMismatch, "a gate {} of a LoRA with lora_a {} and lora_b {} does not fit a projection of {} to {} features",
         tensor::describe(gate_), tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()), in_features(), out_features());
  }
  a_ = pair.lora_a().detach().to(gate_.scalar_type()).contiguous();
  scaled_b_t_ = (pair.lora_b().detach().to(gate_.scalar_type()) * pair.scaling()).t().contiguous();
  update();
}

void GatedLora::update() {
  const torch::NoGradGuard no_grad;
  reading_ = torch::cat({a_, gate_.detach().unsqueeze(0)});
}

torch::Tensor GatedLora::forward(const torch::Tensor& x) const {
  const auto wide = x.to(gate_.scalar_type());
  const auto open = wide.matmul(gate_).sigmoid().unsqueeze(1);
  return base_->forward(x) + (open * wide.mm(a_.t()).mm(scaled_b_t_)).to(x.scalar_type());
}

torch::Tensor GatedLora::backward(const torch::Tensor&) const {
  fail(ErrorKind::kUnsupported, "the gradient through a gate depends on what entered it");
}

torch::Tensor GatedLora::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  const auto rank = a_.size(0);
  record.hidden = backend::shrink(x, reading_);  // [A x, <v, x>], [T, r + 1]
  const auto open = record.hidden.narrow(1, rank, 1).sigmoid_();
  const auto update = backend::expand(record.hidden.narrow(1, 0, rank) * open, scaled_b_t_, onto, x.scalar_type());
  nn::RowRecord below{.first_row = record.first_row, .rows = record.rows, .groups = record.groups};
  return base_->forward_rows(x, update, below);
}

torch::Tensor GatedLora::backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                       nn::RowRecord& record) const {
  const auto rank = a_.size(0);
  const auto z = record.hidden.narrow(1, 0, rank), open = record.hidden.narrow(1, rank, 1);
  const auto dgated = backend::shrink(dy, scaled_b_t_);                           // [T, r]
  const auto dlogit = (dgated * z).sum(1, /*keepdim=*/true) * open * (1 - open);  // [T, 1]
  record.gradients = {backend::outer_product(dlogit, x).squeeze(0)};              // dv [d_in]
  if (!needs_dx) return {};
  if (base_->has_parameters()) fail(ErrorKind::kInternal, "a gate is trained over a frozen projection");
  const auto update = backend::expand(torch::cat({dgated * open, dlogit}, 1), reading_, onto, dy.scalar_type());
  return base_->backward_rows(dy, x, update, true, record);
}

void GatedLora::add_gradients(const nn::RowRecord& record) const { gate_.mutable_grad().add_(record.gradients.at(0)); }

std::int64_t GatedLora::record_bytes() const { return reading_.size(0) * static_cast<std::int64_t>(sizeof(float)); }

}  // namespace quiver::adapters
