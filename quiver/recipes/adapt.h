// Learning a new task with some data, starting from a library (Ostapenko et al. 2024, sec. 4.3 and table 3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/recipes/training_run.h"

namespace quiver::recipes {

struct AdaptSetup {
  TrainingSetup training;                                           ///< tasks: the one task; max_valid: validation rows for early stopping
  methods::AdapterSource members;                                   ///< a library: the adapters to start from
  std::string method = "mean";                                      ///< of methods::learning_methods()
  methods::OptionValues options = methods::OptionValues::object();  ///< of the method
  std::filesystem::path work;                                       ///< folder of checkpoints (io::WorkFolder)
};

/// An adapter of the task, and what making it took.
struct Adapted {
  adapters::LoraAdapter adapter;
  nlohmann::json summary;  ///< method, members, weights where there are some, training or search
};

/// Adapts to setup.training.tasks[0]. Whatever is learnt is one LoRA in the end: where skills or members are mixed, their factors are,
/// with weights that do not depend on the input. Resumable by setup.work; the same setup gives the same result.
/// Throws kUsage for a method without what it needs (a library, equal ranks, two members or more), and as adapted_model and Trainer.
Adapted adapt(const methods::BaseModel& base, const AdaptSetup& setup, Progress& progress);

}  // namespace quiver::recipes
