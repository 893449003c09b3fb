// Static mixtures: several adapters become one, or become part of the weight. Here the linear ones; methods/merges.cpp lists all.
#pragma once

#include <torch/types.h>

#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

/// The paper's mu: both factors averaged on their own,
///
///   A* = (1/n) sum_i A_i,   B* = (1/n) sum_i B_i,   delta_w* = scaling * B* A*
///
/// which mixes across adapters (B_i A_j) and is not the mean of the updates: see mean_of_products. It is meaningful for
/// adapters that started from one lora_a. Sums in float64.
/// Throws kUsage for no adapters and for factors that are NaN or infinite, kUnsupported for a DoRA, kMismatch (naming two
/// adapters) unless all have the same paths, shapes, ranks and scalings, and as far as known the same base.
adapters::LoraAdapter mean_of_factors(std::span<const adapters::LoraAdapter> adapters);

/// A* = sum_i w_i A_i, B* = sum_i w_i B_i, with any finite weights. A one-hot w gives that adapter exactly.
/// Errors as mean_of_factors, and kUsage unless there is one finite weight per adapter.
adapters::LoraAdapter weighted_factors(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights);

/// The mean of the updates, delta_w* = (1/n) sum_i scaling_i B_i A_i, exactly: an adapter of rank sum_i r_i with
/// A* = [A_1; ...; A_n], B* = [(scaling_1/n) B_1, ..., (scaling_n/n) B_n] and scaling 1. Ranks and scalings may differ.
/// Throws as mean_of_factors, but kMismatch only unless all have the same paths and d_in, d_out, and as far as known the
/// same base.
adapters::LoraAdapter mean_of_products(std::span<const adapters::LoraAdapter> adapters);

/// delta_w* = sum_i w_i scaling_i B_i A_i, stacked as mean_of_products; adapters of weight 0 are left out. This is PEFT's "cat",
/// and what mixing the adapters' outputs with these weights gives at run time.
adapters::LoraAdapter weighted_products(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights);

/// Task arithmetic (Ilharco et al. 2023, sec. 4): delta_w* = lambda sum_i delta_w_i, stacked as mean_of_products. lambda is meant
/// to be chosen on validation data; 0.4 is what Yadav et al. 2023 use where there is none. Throws as mean_of_products, and kUsage
/// unless lambda is finite.
adapters::LoraAdapter task_arithmetic(std::span<const adapters::LoraAdapter> adapters, double lambda = 0.4);

}  // namespace quiver::merge
