// What the tests of merges share with those of adapters.
#pragma once

#include <vector>

#include "quiver/adapters/test_support.h"

namespace quiver::merge {

using adapters::config_of;
using adapters::in_another_basis;
using adapters::in_double;
using adapters::kPath;
using adapters::LoraAdapter;
using adapters::LoraPair;
using adapters::random_adapter;
using adapters::relative_difference;
using adapters::same_pairs;
using adapters::three_adapters;
using adapters::three_unequal_adapters;
using adapters::update_difference;
using adapters::update_of;
using adapters::with_config;
using testing::message_of;

/// What WUDI minimises, by its definition (wudi.h).
inline double wudi_objective(const std::vector<LoraPair>& pairs, const torch::Tensor& tau) {
  double sum = 0;
  for (const auto& pair : pairs) {
    const auto task = update_of(pair);
    sum += ((tau - task).matmul(task.t()).square().sum() / task.square().sum()).item<double>();
  }
  return sum;
}

}  // namespace quiver::merge
