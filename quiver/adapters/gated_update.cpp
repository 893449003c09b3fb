#include "quiver/adapters/gated_update.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {

GatedUpdate::GatedUpdate(const nn::Linear& below, const LoraPair& pair, torch::Tensor gate) : gate_(std::move(gate)) {
  if (pair.magnitude().defined()) fail(ErrorKind::kUnsupported, "a gate is of a LoRA's update, which a DoRA is not");
  if (pair.in_features() != below.in_features() || pair.out_features() != below.out_features() ||
      !gate_.sizes().equals({below.in_features()})) {
    fail(ErrorKind::kMismatch, "a gate {} of a LoRA with lora_a {} and lora_b {} does not fit a projection of {} to {} features",
         tensor::describe(gate_), tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()), below.in_features(),
         below.out_features());
  }
  a_ = pair.lora_a().detach().to(gate_.scalar_type()).contiguous();
  scaled_b_t_ = (pair.lora_b().detach().to(gate_.scalar_type()) * pair.scaling()).t().contiguous();
  update();
}

void GatedUpdate::update() {
  const torch::NoGradGuard no_grad;
  reading_ = torch::cat({a_, gate_.detach().unsqueeze(0)});
}

torch::Tensor GatedUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows&,
                                   nn::UpdateRecord& record) const {
  const auto rank = a_.size(0);
  const auto hidden = backend::shrink(x, reading_);  // [A x, <v, x>], [T, r + 1]
  const auto open = hidden.narrow(1, rank, 1).sigmoid_();
  record.saved = {hidden};
  return below.forward(x, backend::expand(hidden.narrow(1, 0, rank) * open, scaled_b_t_, onto, x.scalar_type()));
}

void GatedUpdate::backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows&,
                           nn::UpdateRecord& record) const {
  const auto rank = a_.size(0);
  const auto z = record.saved[0].narrow(1, 0, rank), open = record.saved[0].narrow(1, rank, 1);
  const auto dgated = backend::shrink(dy, scaled_b_t_);                           // [T, r]
  const auto dlogit = (dgated * z).sum(1, /*keepdim=*/true) * open * (1 - open);  // [T, 1]
  record.gradients = {backend::outer_product(dlogit, x).squeeze(0)};              // dv [d_in]
  if (dx != nullptr) *dx = backend::expand(torch::cat({dgated * open, dlogit}, 1), reading_, *dx, dy.scalar_type());
  below.backward(dy, x, dx);
}

void GatedUpdate::add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const {
  sink.sums.at(0).add_(gradients.at(0));
}

std::int64_t GatedUpdate::saved_bytes_per_row() const { return reading_.size(0) * static_cast<std::int64_t>(sizeof(float)); }

}  // namespace quiver::adapters
