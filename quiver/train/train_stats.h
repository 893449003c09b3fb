// What a training run reports. Free of libtorch.
#pragma once

#include <cstdint>
#include <vector>

namespace quiver::train {

/// What training did. Tokens are those of the original examples, a shared prefix counted as often as it occurs; rows
/// are what was computed.
struct TrainStats {
  std::int64_t steps = 0;
  std::int64_t tokens = 0;
  std::int64_t rows = 0;
  double seconds = 0;
  std::vector<double> losses;  ///< per step
  struct Validation {
    std::int64_t step = 0;  ///< steps done
    double loss = 0;
  };
  std::vector<Validation> validations;
  std::int64_t best_step = 0;  ///< of the lowest validation loss, whose adapter is the result; 0 without validation
};

}  // namespace quiver::train
