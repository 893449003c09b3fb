#include "quiver/eval/choice.h"

#include <cmath>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::eval {

std::int64_t best_choice(std::span<const double> log_likelihoods) {
  if (log_likelihoods.empty()) fail(ErrorKind::kUsage, "a question without choices has no best one");
  std::size_t best = 0;
  for (std::size_t i = 0; i < log_likelihoods.size(); ++i) {
    if (std::isnan(log_likelihoods[i])) {
      fail(ErrorKind::kUsage, "the log-likelihood of choice {} is not a number; does the model compute in too narrow a dtype?", i);
    }
    if (log_likelihoods[i] > log_likelihoods[best]) best = i;
  }
  return static_cast<std::int64_t>(best);
}

std::int64_t best_choice_normalized(std::span<const double> log_likelihoods, std::span<const std::string> choices) {
  if (log_likelihoods.size() != choices.size()) {
    fail(ErrorKind::kMismatch, "{} log-likelihoods for {} choices", log_likelihoods.size(), choices.size());
  }
  std::vector<double> normalized(choices.size());
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const auto length = count_code_points(choices[i]);
    if (length == 0) {
      fail(ErrorKind::kUsage, "choice {} is empty, so that its log-likelihood cannot be divided by its length", i);
    }
    normalized[i] = log_likelihoods[i] / static_cast<double>(length);
  }
  return best_choice(normalized);
}

}  // namespace quiver::eval
