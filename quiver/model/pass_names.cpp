#include "quiver/model/pass_names.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {

std::string PassNames::input(std::int64_t index) const {
  return inputs.empty() ? format("prompt {}", index) : inputs.at(static_cast<std::size_t>(index));
}

void fail_not_finite(const std::string& input, const std::string& model) {
  fail(ErrorKind::kMismatch, "the logits after {} are not finite: {} overflows (a scaling too large?)", input,
       model.empty() ? "the base or an adapter" : model);
}

void check_finite(const torch::Tensor& values, std::span<const std::int64_t> input_of, const PassNames& names) {
  const auto checked = values.isfinite().cpu();
  const auto* is_finite = tensor::raw_data<bool>(checked, "finite logits", {std::ssize(input_of)});
  for (std::size_t i = 0; i < input_of.size(); ++i) {
    if (is_finite[i]) continue;
    fail_not_finite(names.input(input_of[i]), names.model);
  }
}

}  // namespace quiver::model
