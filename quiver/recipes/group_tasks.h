// Groups of tasks without private adapters: what model-based clustering is compared with (Ostapenko et al. 2024, table 2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quiver/cluster/kmeans.h"
#include "quiver/library/library.h"
#include "quiver/recipes/build_library.h"

namespace quiver::recipes {

enum class Grouping {
  kRandomTasks,  ///< every task joins one of K groups by chance (RandTask)
  kHidden,       ///< k-means of mean hidden states of the base over the task's prompts (Embeddings)
  kTfIdf,        ///< k-means of the mean TF-IDF vectors of the task's prompts, scaled to unit length
};
/// "random-tasks", "hidden", "tf-idf": recipes of `quiver build`.
const char* grouping_name(Grouping grouping);

/// Groups setup.tasks by `samples` training rows of each, and stores the groups in the library as cluster_library does.
/// Throws kUsage for fewer tasks than groups, and as load_task.
void group_tasks(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup, Grouping grouping,
                 const cluster::KMeansOptions& options, std::int64_t samples, Progress& progress);

/// RandExamples: the joint examples cut into `num_parts` equal parts by chance, an adapter of kind cluster, "part-<i>", on each.
/// Resumable as train_adapter. Throws kUsage for more parts than examples.
std::vector<TrainedAdapter> train_parts(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                        std::int64_t num_parts, Progress& progress);

}  // namespace quiver::recipes
