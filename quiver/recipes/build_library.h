// Building a library: private adapters, model-based clustering, cluster adapters, a shared adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/cluster/mbc.h"
#include "quiver/library/library.h"
#include "quiver/recipes/training_run.h"

namespace quiver::recipes {

/// A recipe of `quiver build`, and what else makes a library, as `quiver methods` lists it.
struct BuildRecipe {
  const char* name;
  const char* what;
  const char* source;
};
std::span<const BuildRecipe> build_recipes();

/// What one training gave; `is_new` is false if the library had the adapter already.
struct TrainedAdapter {
  std::string name;
  library::AdapterKind kind = library::AdapterKind::kPrivate;
  train::TrainStats stats;
  bool is_new = false;
  double overhead_seconds = 0;  ///< of a new one: reading, tokenising, setting up, writing; all but the steps
};
nlohmann::json to_json(const TrainedAdapter& adapter);
/// {"adapters": [...], "total": {...}}: tokens of the original examples, rows computed, seconds, tokens per second,
/// first and last loss (in the total: their means over the adapters).
nlohmann::json training_summary(const std::vector<TrainedAdapter>& adapters);

/// Trains one adapter on the joint examples of `info.tasks` into the library; `info` has no training yet.
///
/// Resumable: a checkpoint beside the adapters is taken up if it is of the same settings, data and base; an adapter that
/// the library holds with the same settings is left as it is; with other settings it is kMismatch, unless `force`.
/// The result is bit for bit that of an uninterrupted run.
TrainedAdapter train_adapter(const methods::BaseModel& base, library::Library& library, const std::string& name,
                             const library::AdapterInfo& info, const TrainingSetup& setup, Progress& progress);

/// The same on examples that are given; `info.tasks` says what they are of.
TrainedAdapter train_on(const methods::BaseModel& base, library::Library& library, const std::string& name,
                        const library::AdapterInfo& info, const TrainingData& data, const TrainingSetup& setup, Progress& progress);

/// One private adapter per task, named after it.
std::vector<TrainedAdapter> train_private(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                          Progress& progress);

/// One adapter named "shared" on all tasks.
TrainedAdapter train_shared(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup, Progress& progress);

/// MBC of the named adapters; stores the grouping of their tasks in the library (groups "c0", "c1", ...).
cluster::MbcResult cluster_library(library::Library& library, const std::vector<std::string>& names, const cluster::MbcOptions& options);
nlohmann::json to_json(const cluster::MbcResult& result);
/// {"adapters", "similarity", "sweep": [{"num_clusters", "inertia", "silhouette" or null, "labels"}], "suggested"}.
nlohmann::json to_json(const cluster::SweepResult& result);

/// One adapter per group of the library, named "cluster-<group>", on the joint examples of the group's tasks.
std::vector<TrainedAdapter> train_clusters(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                           Progress& progress);

}  // namespace quiver::recipes
