// From the samples of an evaluation to the figures that tables and reports show.
#pragma once

#include "quiver/results/results.h"

namespace quiver::results {

/// Fills `summary`, `per_task`, `comparisons` (compare_methods) and `warnings` (find_warnings) from `samples`, for the methods and metrics
/// that the results describe, in their order: means with standard errors over samples, paired differences to the method "base" by row and
/// by task, and the recovered share
///
///   recovered = (mean - method) / (mean - oracle)
///
/// of "X-METHOD" between "X-mean" and "X-oracle", where the oracle is better than the mean. Sections are "train", "instruction" and
/// "choice". Throws kUsage for a value that is not finite.
void summarize(Results& results);

}  // namespace quiver::results
