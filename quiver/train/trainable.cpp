#include "quiver/train/trainable.h"

#include "quiver/adapters/dora_linear.h"
#include "quiver/base/error.h"

namespace quiver::train {

nn::ProjectionPtr& projection_at(nn::ProjectionMap& projections, const std::string& path, const std::string& adapter) {
  const auto found = projections.find(path);
  if (found == projections.end()) {
    fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the base model does not have", adapter, path);
  }
  return found->second;
}

nn::ProjectionMap OneAdapter::attach(const nn::ProjectionMap& base) {
  auto projections = base;
  for (const auto& [path, pair] : parameters_.adapter().pairs) {
    auto& projection = projection_at(projections, path, name());
    if (pair.magnitude().defined()) {
      layers_.push_back(std::make_shared<adapters::DoraLinear>(projection, pair));
    } else {
      auto layer = std::make_shared<adapters::LoraLinear>(projection, pair, dropout());
      if (dropout() > 0) dropout_layers_.emplace(path, layer);
      layers_.push_back(std::move(layer));
    }
    projection = layers_.back();
  }
  return projections;
}

void OneAdapter::lay_out(std::span<const std::int32_t>) {
  for (const auto& layer : layers_) layer->update();
}

void OneAdapter::set_dropout_masks(const MaskOf& mask) {
  for (const auto& [path, layer] : dropout_layers_) layer->set_dropout_mask(mask ? mask(path, layer->in_features()) : torch::Tensor());
}

}  // namespace quiver::train
