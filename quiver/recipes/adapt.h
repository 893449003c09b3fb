// Learning a new task with some data, starting from a library (Ostapenko et al. 2024, sec. 4.3 and table 3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/merge/skills.h"
#include "quiver/recipes/adapted_model.h"
#include "quiver/recipes/training_run.h"
#include "quiver/train/gradient_free.h"

namespace quiver::recipes {

/// A method as `quiver methods` lists it.
struct AdaptMethod {
  const char* name;
  const char* what;
  const char* source;
  bool needs_library = true;
};

std::span<const AdaptMethod> adapt_methods();
/// Throws kUsage for a name that is not in the list, naming the nearest.
const AdaptMethod& adapt_method(std::string_view name);

/// What a search without gradients minimises, on rows of the training data.
enum class SearchObjective {
  kRouge,  ///< -Rouge-L of what the model generates + penalty mean_k |w_k| (Ostapenko et al. 2024's code)
  kLoss,   ///< the loss + penalty sum_k |w_k| (LoraHub, Huang et al. 2023, eq. 4)
};

struct AdaptSetup {
  TrainingSetup training;  ///< tasks: the one task; max_valid: validation rows for early stopping
  std::string method = "mean";
  AdapterChoice members;  ///< library, names, kind, task_data and task_samples: the adapters to start from

  // Of the members: all, or the `retrieve` nearest to the task.
  std::int64_t retrieve = 0;
  std::string retrieve_by = "weights";  ///< "random", "weights" (cosine of factors) or "fisher"

  // poly, polyz, mhr, mhrz, weights, pi-tuning
  merge::MixUnit unit = merge::MixUnit::kProjection;
  std::int64_t num_heads = 0;  ///< of mhr and mhrz; 0: 32
  double logit_rate = 0.1;     ///< peak learning rate of logits and weights

  // lorahub
  train::SearchOptions search{.method = train::SearchMethod::kCobyla, .max_evaluations = 30, .bound = 1.5};
  SearchObjective objective = SearchObjective::kRouge;
  double penalty = 0.0025;       ///< 0.05 x 0.05 for kRouge; LoraHub's own, for kLoss, is 0.05
  std::int64_t search_rows = 0;  ///< training rows of the objective; 0: half of them
  std::int64_t max_new_tokens = 64;

  std::filesystem::path work;  ///< folder of checkpoints (io::WorkFolder)
};

/// An adapter of the task, and what making it took.
struct Adapted {
  adapters::LoraAdapter adapter;
  nlohmann::json summary;  ///< method, members, weights where there are some, training or search
};

/// Adapts to setup.training.tasks[0]. Whatever is learnt is one LoRA in the end: where skills or members are mixed, their factors are,
/// with weights that do not depend on the input. Resumable by setup.work; the same setup gives the same result.
/// Throws kUsage for a method without what it needs (a library, equal ranks, two members or more), and as adapted_model and Trainer.
Adapted adapt(const BaseModel& base, const AdaptSetup& setup, Progress& progress);

}  // namespace quiver::recipes
