// The choice that a model makes of several.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quiver::eval {

/// The choice of the highest log-likelihood: lm-evaluation-harness' `acc` compares it with the
/// label. Of equal ones the first. Throws kUsage if there is no choice or a log-likelihood is NaN.
std::int64_t best_choice(std::span<const double> log_likelihoods);

/// The same after dividing each log-likelihood by the number of characters (Unicode code points) of
/// its choice, as for `acc_norm`; the space that stands before a choice in the prompt is not part
/// of it. Throws kMismatch if the lengths differ, kUsage also if a choice is empty.
std::int64_t best_choice_normalized(std::span<const double> log_likelihoods, std::span<const std::string> choices);

}  // namespace quiver::eval
