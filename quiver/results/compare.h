// Every method against every other.
#pragma once

#include <cstdint>
#include <vector>

#include "quiver/results/results.h"

namespace quiver::results {

struct CompareOptions {
  std::int64_t num_draws = 10'000;  ///< of the bootstrap
  std::uint64_t seed = 0;           ///< of its streams, "bootstrap/SECTION/METRIC/row" and ".../task"
};

/// Compares, for each section of the samples and each metric, every pair of methods that share samples, on these samples: the mean
/// difference, and for other rows and for other tasks
///
///   - the percentile interval of the bootstrap, which draws rows, or whole tasks with their rows (percentile_interval);
///   - the intervals for all pairs of the section and metric at once (SimultaneousIntervals);
///   - a p-value: by row McNemar's exact test where both methods' values are all 0 or 1, else the paired t test; by task the clustered t
///     test. Corrected by Holm's method over all pairs of the section and metric.
///
/// Nothing is corrected for looking at several metrics or sections. Intervals of the bootstrap by few tasks are too narrow, while t with
/// as many degrees of freedom as tasks less one is not: PairedTest::is_told_apart asks both. Oracles are compared as all others.
///
/// Texts weigh by their bytes: bits_per_byte is compared by a weighted t test, and draws are of texts, or tasks, with all of their bytes.
/// Perplexities are not compared: they rise and fall with bits_per_byte.
///
/// A metric whose value is not finite is missing from its sample. Pairs are in the order of the methods, for each section in the order of
/// its first sample, by metric in the results' order. Throws kUsage for no draws.
std::vector<Comparison> compare_methods(const Results& results, const CompareOptions& options = {});

}  // namespace quiver::results
