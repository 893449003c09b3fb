#include "quiver/adapters/lora_update.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/adapters/dora_update.h"
#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {

LoraUpdate::LoraUpdate(const nn::Linear& below, LoraPair pair)
    : pair_(std::move(pair)), dtype_(tensor::compute_dtype(below.weight().dtype())) {
  if (pair_.in_features() != below.in_features() || pair_.out_features() != below.out_features()) {
    fail(ErrorKind::kMismatch, "a LoRA with lora_a {} and lora_b {} does not fit a projection of {} to {} features",
         tensor::describe(pair_.lora_a()), tensor::describe(pair_.lora_b()), below.in_features(), below.out_features());
  }
  update();
}

void LoraUpdate::update() {
  const torch::NoGradGuard no_grad;
  a_ = pair_.lora_a().detach().to(dtype_).contiguous();
  scaled_b_t_ = (pair_.lora_b().detach().to(dtype_) * pair_.scaling()).t().contiguous();
  if (pair_.bias().defined()) scaled_bias_ = pair_.bias().detach().to(dtype_) * pair_.scaling();
}

torch::Tensor LoraUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                                  nn::UpdateRecord& record) const {
  const auto mask = nn::take_rows(dropout_mask_, rows, x.size(0));
  const auto z = backend::shrink(mask.defined() ? x * mask : x, a_);  // [T, r]
  record.saved = {z};
  auto update = backend::expand(z, scaled_b_t_, onto, x.scalar_type());
  if (scaled_bias_.defined()) update = update + scaled_bias_.to(update.scalar_type());
  return below.forward(x, update);
}

void LoraUpdate::add_to(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const nn::Rows& rows, const torch::Tensor& y) const {
  if (dropout_mask_.defined()) {
    const auto count = end - begin;
    backend::add_low_rank(x.narrow(0, begin, count) * nn::take_rows(dropout_mask_, rows, count), 0, count, a_, scaled_b_t_,
                          y.narrow(0, begin, count));
  } else {
    backend::add_low_rank(x, begin, end, a_, scaled_b_t_, y);
  }
  if (scaled_bias_.defined()) y.narrow(0, begin, end - begin).add_(scaled_bias_);
}

void LoraUpdate::backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                          nn::UpdateRecord& record) const {
  const auto mask = nn::take_rows(dropout_mask_, rows, x.size(0));
  const auto dz = backend::shrink(dy, scaled_b_t_);                               // [T, r]
  record.gradients = {backend::outer_product(dz, mask.defined() ? x * mask : x),  // dA [r, d_in]
                      backend::outer_product(record.saved[0], dy)};               // dB^T / scaling [r, d_out]
  if (scaled_bias_.defined()) record.gradients.push_back(dy.to(dtype_).sum(0));   // dc / scaling [d_out]
  if (dx != nullptr) {
    if (mask.defined()) {
      const auto masked = backend::expand(dz, a_, {}, dy.scalar_type()).mul_(mask);
      *dx = dx->defined() ? masked.add_(*dx) : masked;
    } else {
      *dx = backend::expand(dz, a_, *dx, dy.scalar_type());
    }
  }
  below.backward(dy, x, dx);
}

void LoraUpdate::add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const {
  sink.sums.at(0).add_(gradients.at(0));
  sink.sums.at(1).add_(gradients.at(1).t(), pair_.scaling());
  if (scaled_bias_.defined()) sink.sums.at(2).add_(gradients[2], pair_.scaling());
}

std::int64_t LoraUpdate::saved_bytes_per_row() const { return pair_.rank() * static_cast<std::int64_t>(sizeof(float)); }

nn::UpdatePtr update_of(const nn::Linear& below, const LoraPair& pair) {
  if (pair.magnitude().defined()) return std::make_shared<DoraUpdate>(below, pair);
  return std::make_shared<LoraUpdate>(below, pair);
}

nn::LinearMap attach(const nn::LinearMap& linears, const LoraAdapter& adapter) {
  auto adapted = linears;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto found = adapted.find(path);
    if (found == adapted.end()) {
      fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the base model does not have", adapter.name, path);
    }
    auto& linear = found->second;
    linear = linear.with(update_of(linear, pair));
  }
  return adapted;
}

}  // namespace quiver::adapters
