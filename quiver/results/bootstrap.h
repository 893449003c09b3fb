// The paired bootstrap: intervals of differences of means, for many methods on the same samples at once.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/random.h"

namespace quiver::results {

/// Numbers of units, drawn with replacement: uniform in {0, ..., num_units - 1}. Each number of the stream gives several, up to four,
/// unbiased by rejection (Brackett-Rozinsky and Lemire 2025, alg. 4).
class UnitDraws {
 public:
  /// Throws kUsage unless num_units is in [1, 2^31]. `stream` must outlive this.
  UnitDraws(RandomStream& stream, std::int64_t num_units);

  std::uint32_t next() {
    if (left_ == 0) draw();
    return batch_[--left_];
  }

 private:
  void draw();

  RandomStream* stream_;
  std::uint64_t num_units_;
  std::size_t size_ = 0;         // of a batch
  std::uint64_t threshold_ = 0;  // 2^64 modulo num_units^size
  std::array<std::uint32_t, 4> batch_{};
  std::size_t left_ = 0;
};

/// The units that a bootstrap draws, rows or whole tasks, with the sums of their values.
struct BootstrapUnits {
  std::int64_t num_columns = 0;  ///< M methods
  std::vector<double> sums;      ///< U x M, unit by unit
  std::vector<double> sizes;     ///< U: rows in the unit

  std::int64_t num_units() const { return static_cast<std::int64_t>(sizes.size()); }
};

/// Every row a unit. `values` is n x M, row by row. Throws kMismatch if M does not divide its size, kUsage for a value that is not finite.
BootstrapUnits rows_as_units(std::span<const double> values, std::int64_t num_columns);
/// Every cluster a unit; `clusters` holds the cluster of each row, in 0 ... G - 1. Throws as rows_as_units, kMismatch for another number of
/// rows, and kUsage for a cluster below 0 or one without rows.
BootstrapUnits clusters_as_units(std::span<const double> values, std::int64_t num_columns, std::span<const std::int64_t> clusters);

/// The mean of each column over the units of each draw,
///
///   mean_bm = sum_u c_bu sums_um / sum_u c_bu sizes_u,
///
/// where the counts c_b are those of U draws with replacement from U units (Efron and Tibshirani 1993, ch. 6; for clusters Cameron, Gelbach
/// and Miller 2008, sec. III.A). All columns see the same draws, so that differences of columns are paired, and one table of means serves
/// every pair.
///
/// Returns num_draws x M, draw by draw. Costs num_draws * U * (M + 2) additions or so. Throws kUsage for no units or no draws.
std::vector<double> bootstrap_means(const BootstrapUnits& units, std::int64_t num_draws, RandomStream& stream);

struct Interval {
  double low = 0, high = 0;

  bool excludes_zero() const { return low > 0 || high < 0; }
};

/// The quantile of values in any order, between neighbours by linear interpolation (Hyndman and Fan 1996, type 7). Throws kUsage for no
/// values or a share outside [0, 1].
double quantile(std::vector<double> values, double share);

/// The percentile interval of a bootstrapped figure, its quantiles (1 - confidence) / 2 and (1 + confidence) / 2 (Efron and Tibshirani
/// 1993, sec. 13.3). By 10,000 draws the standard error of its ends is 0.7 % of its width: sqrt(0.025 * 0.975 / 10000) over the normal
/// density at its 97.5 % quantile, over 3.92.
Interval percentile_interval(std::span<const double> draws, double confidence);

/// Intervals that hold for all figures at once with probability `confidence`, from the same draws of each,
///
///   estimate_p +- c s_p,   c the quantile `confidence` over draws b of max_p |draw_bp - estimate_p| / s_p,
///
/// with s_p the standard deviation of the draws (the single-step maximum of t, Westfall and Young 1993, sec. 2.3.3). Pairs that share a
/// method depend on one another, which the draws know: these are narrower than Bonferroni's. Figures whose draws are all equal have
/// an interval without width.
class SimultaneousIntervals {
 public:
  explicit SimultaneousIntervals(std::int64_t num_draws) : largest_(static_cast<std::size_t>(num_draws)) {}

  /// Adds a figure and gives it the next number from 0. Throws kMismatch for another number of draws.
  void add(double estimate, std::span<const double> draws);
  /// One for each figure. Throws as quantile.
  std::vector<Interval> intervals(double confidence) const;

 private:
  struct Figure {
    double estimate, deviation;
  };
  std::vector<Figure> figures_;
  std::vector<double> largest_;  // over the figures, for each draw
};

}  // namespace quiver::results
