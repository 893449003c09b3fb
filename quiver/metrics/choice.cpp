#include "quiver/metrics/choice.h"

#include <cmath>
#include <numeric>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::metrics {
namespace {

void check_counts(std::size_t num_scores, std::size_t num_others, std::string_view others) {
  if (num_scores != num_others) {
    fail(ErrorKind::kMismatch, "{} log-likelihoods for {} {}; expected as many", num_scores, num_others, others);
  }
}

/// The best after dividing by the choices' lengths.
template <typename Length>
std::int64_t best_by_length(std::span<const double> log_likelihoods, std::span<const std::string> choices, const Length& length_of) {
  check_counts(log_likelihoods.size(), choices.size(), "choices");
  std::vector<double> normalized(choices.size());
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].empty()) {
      fail(ErrorKind::kUsage, "choice {} is empty, so that its log-likelihood cannot be divided by its length", i);
    }
    normalized[i] = log_likelihoods[i] / static_cast<double>(length_of(choices[i]));
  }
  return best_choice(normalized);
}

}  // namespace

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
  return best_by_length(log_likelihoods, choices, [](const std::string& choice) { return count_code_points(choice); });
}

std::int64_t best_choice_per_byte(std::span<const double> log_likelihoods, std::span<const std::string> choices) {
  return best_by_length(log_likelihoods, choices, [](const std::string& choice) { return choice.size(); });
}

std::int64_t best_choice_by_mutual_info(std::span<const double> log_likelihoods, std::span<const double> unconditional) {
  check_counts(log_likelihoods.size(), unconditional.size(), "unconditional ones");
  std::vector<double> gains(log_likelihoods.size());
  for (std::size_t i = 0; i < gains.size(); ++i) {
    gains[i] = log_likelihoods[i] - unconditional[i];
    if (std::isnan(gains[i])) {
      fail(ErrorKind::kUsage, "choice {} has the log-likelihoods {} with and {} without the question, whose difference is not a number", i,
           log_likelihoods[i], unconditional[i]);
    }
  }
  return best_choice(gains);
}

std::int64_t best_choice_per_token(std::span<const std::vector<double>> token_log_probs) {
  std::vector<double> means(token_log_probs.size());
  for (std::size_t i = 0; i < means.size(); ++i) {
    const auto& tokens = token_log_probs[i];
    if (tokens.empty()) fail(ErrorKind::kUsage, "choice {} has no token, so that it has no mean over tokens; score EOS with it", i);
    means[i] = std::accumulate(tokens.begin(), tokens.end(), 0.0) / static_cast<double>(tokens.size());
  }
  return best_choice(means);
}

}  // namespace quiver::metrics
