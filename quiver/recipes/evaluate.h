// Methods x tasks: likelihood and Rouge-L on training tasks and on held-out instruction tasks, accuracy on multiple
// choice, with every method compared with the base sample by sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/recipes/adapted_model.h"
#include "quiver/results/results.h"

namespace quiver::recipes {

/// The rows of one section of an evaluation.
struct EvalSection {
  std::filesystem::path data;  ///< empty: the section is left out
  std::vector<std::string> tasks;
  std::int64_t max_rows = 0;  ///< per task; 0: all
};

struct EvalSetup {
  EvalSection train;                 ///< "test" rows of tasks that adapters were trained on: NLL of the target, Rouge-L
  EvalSection instruction;           ///< "test" rows of other tasks: the same
  EvalSection choice;                ///< multiple-choice sets: acc, acc_norm
  std::vector<std::string> methods;  ///< names of eval_methods(); or "given": what `choice_of_adapters` says
  AdapterChoice choice_of_adapters;  ///< library, top_k, temperature, combine for all; adapter and method for "given"
  bool generates = true;             ///< answers, for Rouge-L: what takes most of the time
  std::int64_t max_new_tokens = 64;
  std::int64_t max_length = 2048;
  std::uint64_t seed = 42;     ///< chooses the rows
  std::filesystem::path work;  ///< where finished parts are kept, so that a killed run goes on
};

/// The names of all methods that a library built by `build` can be evaluated with, base first.
std::vector<std::string> eval_methods();

/// Runs the evaluation. The results say nothing of the machine.
/// Throws kUsage for an unknown method or nothing to do, and as adapted_model.
results::Results evaluate(const BaseModel& base, const EvalSetup& setup, Progress& progress);

}  // namespace quiver::recipes
