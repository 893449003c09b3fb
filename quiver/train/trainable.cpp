#include "quiver/train/trainable.h"

#include "quiver/base/error.h"

namespace quiver::train {

const nn::Linear& linear_at(const nn::LinearMap& linears, const std::string& path, const std::string& adapter) {
  const auto found = linears.find(path);
  if (found == linears.end()) {
    fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the base model does not have", adapter, path);
  }
  return found->second;
}

nn::TrainedUpdates OneAdapter::attach(const nn::LinearMap& base) {
  nn::TrainedUpdates updates;
  for (const auto& [path, pair] : parameters_.adapter().pairs) {
    const auto& linear = linear_at(base, path, name());
    nn::TrainedUpdate trained{nullptr, parameters_.sinks().at(path)};
    if (pair.magnitude().defined()) {
      trained.update = doras_[path] = std::make_shared<adapters::DoraUpdate>(linear, pair);
    } else {
      trained.update = loras_[path] = std::make_shared<adapters::LoraUpdate>(linear, pair);
    }
    updates.emplace(path, std::move(trained));
  }
  return updates;
}

void OneAdapter::lay_out(std::span<const std::int32_t>) {
  for (const auto& [path, update] : loras_) update->update();
  for (const auto& [path, update] : doras_) update->update();
}

void OneAdapter::set_dropout_masks(const MaskOf& mask) {
  if (dropout() == 0) return;
  for (const auto& [path, update] : loras_) update->set_dropout_mask(mask ? mask(path, update->pair().in_features()) : torch::Tensor());
}

}  // namespace quiver::train
