// The choice that a model makes of several.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quiver::metrics {

/// The choice of the highest log-likelihood: lm-evaluation-harness' `acc` compares it with the
/// label. Of equal ones the first. Throws kUsage if there is no choice or a log-likelihood is NaN.
std::int64_t best_choice(std::span<const double> log_likelihoods);

/// The same after dividing each log-likelihood by the number of characters (Unicode code points) of
/// its choice, as for `acc_norm`; the space that stands before a choice in the prompt is not part
/// of it. Throws kMismatch if the lengths differ, kUsage also if a choice is empty.
std::int64_t best_choice_normalized(std::span<const double> log_likelihoods, std::span<const std::string> choices);

/// The same for `acc_bytes`: divided by the bytes of the choice in UTF-8. Throws likewise.
std::int64_t best_choice_per_byte(std::span<const double> log_likelihoods, std::span<const std::string> choices);

/// The choice that gains most from the question, for `acc_mutual_info`: the highest log p(choice | question) - log p(choice), the latter
/// after an empty context. Of equal ones the first. Throws kMismatch if the lengths differ, and as best_choice; a choice that is
/// impossible with and without the question has no difference.
std::int64_t best_choice_by_mutual_info(std::span<const double> log_likelihoods, std::span<const double> unconditional);

/// The choice of the lowest mean negative log-likelihood per token, the score of Ostapenko et al. 2024 (appendix 9) and of mttl. The rows
/// hold the log-probabilities of a choice's tokens, EOS after them: for the paper's score the caller scores EOS with every choice. Of equal
/// ones the first. Throws kUsage if a choice has no token, and as best_choice.
std::int64_t best_choice_per_token(std::span<const std::vector<double>> token_log_probs);

}  // namespace quiver::metrics
