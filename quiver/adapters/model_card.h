// README.md of an adapter or a merged model, with the front matter that model hubs read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"

namespace quiver::adapters {

/// What is known of an adapter beside its tensors.
struct CardFacts {
  std::vector<std::string> datasets;      ///< the tasks that it was trained on
  std::map<std::string, double> metrics;  ///< "eval_loss": 0.41
};

/// The card of a PEFT folder.
std::string adapter_card(const LoraAdapter& adapter, const CardFacts& facts = {});
/// The card of a base whose weights hold the adapter. Neither may have a name.
std::string merged_card(const std::string& base_model, const LoraAdapter& adapter, const CardFacts& facts = {});

}  // namespace quiver::adapters
