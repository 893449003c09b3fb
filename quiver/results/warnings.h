// What makes figures say less than they seem to.
#pragma once

#include <cstdint>
#include <vector>

#include "quiver/results/results.h"

namespace quiver::results {

/// Accuracies are compared with guessing from this many samples: of fewer, its interval holds almost all.
inline constexpr std::int64_t kFewestForChance = 20;
/// Answers that are empty but for white space are warned of from this share on, and from this many samples.
inline constexpr double kMostEmpty = 0.5;
inline constexpr std::int64_t kFewestForEmpty = 5;
/// Answers of the same text are warned of from this share on, and from this many samples.
inline constexpr double kMostEqual = 0.8;
inline constexpr std::int64_t kFewestForEqual = 20;

/// Looks at the samples of each section, task and method, for
///
///   - "near chance": the first metric of samples with choices is 0 or 1, and of kFewestForChance samples or more, and its mean x is where
///   guessing is in 95 % of cases,
///     |x - sum_i q_i / n| <= 1.96 sqrt(sum_i q_i (1 - q_i)) / n, with q_i = 1 / C_i for C_i choices;
///   - "empty answers": a share of kMostEmpty of the predictions, or more, is empty;
///   - "equal answers": a share of kMostEqual of the predictions, or more, is one text that is not empty, and no first target has that
///   share.
///
/// Sections and tasks are in the order of their first sample, methods in the results' order.
std::vector<Warning> find_warnings(const Results& results);

}  // namespace quiver::results
