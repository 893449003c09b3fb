// The program checks itself on a tiny model made on the spot.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace quiver::diagnostics {

struct SelfCheck {
  std::string what;
  bool passed = false;
  double difference = 0;  ///< largest deviation found, where the check measures one
};

struct SelfCheckResult {
  std::vector<SelfCheck> checks;
  nlohmann::json behaviour;  ///< greedy tokens, routing choices, rounded losses
  std::string signature;     ///< of the behaviour: a change that keeps it changed nothing that matters
  bool passed() const;
};

/// Trains two adapters on a tiny random model in float32 and uses them in every way; a few seconds.
SelfCheckResult selfcheck();

}  // namespace quiver::diagnostics
