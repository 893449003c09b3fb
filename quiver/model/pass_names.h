// Logits that are not finite are told by the names of the input and of the model that made them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quiver::model {

/// Names for messages about a pass over several inputs.
struct PassNames {
  std::string model;                ///< "the base with adapter 'qnli'"; empty: "the base or an adapter"
  std::vector<std::string> inputs;  ///< one per input; empty: "prompt <index>"

  std::string input(std::int64_t index) const;
};

/// Throws kMismatch: the logits after the input are not finite. `model` as in PassNames.
[[noreturn]] void fail_not_finite(const std::string& input, const std::string& model);
/// The same for the first of `values` [N] that is not finite. Value i belongs to the input input_of[i].
void check_finite(const torch::Tensor& values, std::span<const std::int64_t> input_of, const PassNames& names);

}  // namespace quiver::model
