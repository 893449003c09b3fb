// Minimising a function of a few numbers by its values alone: for weights of adapters that are judged by what a model generates (LoraHub),
// where there is no gradient.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace quiver::train {

enum class SearchMethod {
  /// CMA-ES, (mu/mu_w, lambda) with cumulative step-size adaptation, rank-one and rank-mu updates, and the default strategy parameters of
  /// Hansen 2016, "The CMA Evolution Strategy: A Tutorial" (table 1, figure 6; positive recombination weights only).
  kCmaEs,
  /// (1+1)-ES with the 1/5 success rule (Rechenberg 1973): one offspring, x + step z. If it is better it becomes the parent and the step
  /// doubles; if it is equal it becomes the parent; if it is worse the step is divided by 2^(1/4). For budgets too small for a covariance,
  /// below some 10 evaluations per dimension.
  kOnePlusOne,
  /// COBYLA (Powell 1994), linear models over a simplex of n + 1 points within a trust region, by NLopt's LN_COBYLA: what nevergrad's
  /// NGOpt,
  /// and so LoraHub, uses within bounds below 200 evaluations per dimension. Draws nothing.
  kCobyla,
};

struct SearchOptions {
  SearchMethod method = SearchMethod::kCmaEs;
  std::int64_t max_evaluations = 200;
  double step = 0.5;  ///< initial standard deviation of every coordinate; about a third of the distance to the minimum is good
  /// Every coordinate stays within [-bound, bound]: the objective never sees another point. The method's own points may lie outside; they
  /// are evaluated where they are clipped to; CMA-ES ranks them with a penalty that grows with the square of the distance.
  double bound = std::numeric_limits<double>::infinity();
  double target = -std::numeric_limits<double>::infinity();  ///< ends the search at a value that is no larger
  std::int64_t population = 0;                               ///< lambda of CMA-ES; 0: 4 + floor(3 ln n)
  std::uint64_t seed = 42;                                   ///< of the stream "gradient_free"
};

struct SearchResult {
  std::vector<double> x;  ///< [n], the best point evaluated, within the bounds; the first of equals
  double value = 0;       ///< of the objective there
  std::int64_t evaluations = 0;
  std::vector<double> history;  ///< [evaluations], the objective's values in order
};

using Objective = std::function<double(std::span<const double>)>;

/// Minimises `objective` from `start` [n]. The start itself is evaluated first, so the result is never worse. The objective is called
/// `max_evaluations` times, fewer only if `target` is reached or COBYLA's steps vanish in rounding. The result depends on the objective's
/// values, start and options alone; computed in float64. Throws kUsage for an empty start, one that is outside the bounds or not finite,
/// options out of range (max_evaluations >= 1, step > 0, bound > 0, population 0 or >= 4), and an objective that is not finite.
SearchResult minimize(const Objective& objective, std::span<const double> start, const SearchOptions& options);

}  // namespace quiver::train
