// Training the LoRAs of several groups on one linear map.
#pragma once

#include <torch/types.h>

#include <map>
#include <memory>
#include <string>

#include "quiver/adapters/grouped_update.h"

namespace quiver::train {

/// A GroupedUpdate whose factors are lent to it for some passes, and the sums of their gradients, [G, r, d_in] and [G, d_out, r].
struct GroupedTraining {
  std::shared_ptr<adapters::GroupedUpdate> update;
  std::shared_ptr<nn::GradientSink> sink = std::make_shared<nn::GradientSink>();

  GroupedTraining(const nn::Linear& below, double scaling) : update(std::make_shared<adapters::GroupedUpdate>(below, scaling)) {}
  /// Sets the factors of the next passes, and the sums to zero.
  void set_factors(const torch::Tensor& lora_a, const torch::Tensor& lora_b) {
    update->set_factors(lora_a, lora_b);
    sink->sums = {torch::zeros_like(lora_a.detach(), torch::MemoryFormat::Contiguous),
                  torch::zeros_like(lora_b.detach(), torch::MemoryFormat::Contiguous)};
  }
};

inline nn::TrainedUpdates trained_updates(const std::map<std::string, GroupedTraining>& all) {
  nn::TrainedUpdates updates;
  for (const auto& [path, one] : all) updates.emplace(path, nn::TrainedUpdate{one.update, one.sink});
  return updates;
}

}  // namespace quiver::train
