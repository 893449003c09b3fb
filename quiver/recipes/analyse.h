// Figures about a library: how routing decides, whether an adapter answers its own task's inputs most, and whether adapters that are
// alike help each other (Ostapenko et al. 2024, fig. 2 and 5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/methods/adapted_model.h"
#include "quiver/recipes/training_run.h"

namespace quiver::recipes {

/// Test rows of the tasks that adapters of the library were trained on.
struct AnalysisSetup {
  methods::AdapterUse use;  ///< library, adapters, and for routing the method
  std::filesystem::path data = "data/train";
  std::vector<std::string> tasks;  ///< empty: all that the chosen adapters name
  std::int64_t rows = 8;           ///< of each task
  std::uint64_t seed = 42;
};

/// How a method of the families kToken and kPrompt decides on prompts of each task: {"method", "adapters", "tasks": [...], "mean": {...}},
/// each with the means over its rows of the figures of trace_routes and
///
///   true_share   the mean weight of the adapters that were trained on the task; null for a task without one
///   relative_entropy   entropy / ln(number of adapters)
///
/// Throws kUsage for a method that chooses nothing, and as adapted_model.
nlohmann::json analyse_routing(const methods::BaseModel& base, const AnalysisSetup& setup, Progress& progress);

/// Figure 5: r = mean over projections l of |delta_W_i,l h_l| / |delta_W_j,l h_l| for prompts of adapter i's own task, j being another
/// adapter drawn anew for every projection, norms averaged over the prompt's tokens, and h computed with adapter i at work:
/// {"tasks": [{"name", "adapter", "ratios"}], "mean", "above_one", "num_samples"}. Throws kUsage for fewer than two adapters.
nlohmann::json analyse_norms(const methods::BaseModel& base, const AnalysisSetup& setup, Progress& progress);

struct TransferSetup {
  AnalysisSetup analysis;
  TrainingSetup training;  ///< as the private adapters were trained; its data and tasks are not read
  std::int64_t num_pairs = 12;
  std::filesystem::path work;  ///< a library of the pairs' adapters, made if it is not there; what is in it is not trained again
};

/// Figure 2: for pairs of tasks drawn by chance, the cosine of their private adapters' flattened factors, and what training one adapter on
/// both gains: the mean log-likelihood per label of their test rows, less that of each task's own adapter on its own rows.
/// {"pairs": [{"tasks", "cosine", "gain"}], "correlation", "interval"}: Pearson's r with Fisher's 95 % interval (null below 4 pairs).
/// Throws kUsage for fewer than two private adapters of one task each.
nlohmann::json analyse_transfer(const methods::BaseModel& base, const TransferSetup& setup, Progress& progress);

}  // namespace quiver::recipes
