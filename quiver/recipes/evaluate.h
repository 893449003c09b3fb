// Methods x tasks: likelihoods, answers, choices and programs, with every method compared with the base sample by sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/recipes/eval_methods.h"
#include "quiver/recipes/eval_rows.h"
#include "quiver/recipes/eval_section.h"
#include "quiver/results/results.h"
#include "quiver/tasks/eval_task.h"

namespace quiver::recipes {

struct EvalSetup {
  std::vector<tasks::EvalTask> tasks;
  std::vector<EvalMethod> methods;
  methods::AdapterUse given;  ///< library, general and allow_other_base for all; the rest for the method kGiven
  methods::OptionValues options = methods::OptionValues::object();  ///< that were given for all methods, for the record
  RowOptions rows;
  AnswerSampling sampling;
  ProgramRunner programs;
  std::uint64_t seed = 42;     ///< draws answers where they are sampled
  std::filesystem::path work;  ///< where what is done is kept, chunk by chunk, so that a killed run goes on
};

/// Refuses what the setup alone shows to be wrong, before a model is loaded or a file begun.
/// Throws kUsage for nothing to do, a method named twice, and tasks that need answers where none are generated; as check_can_run.
void check_setup(const EvalSetup& setup);

/// Moves tasks of section "train" that no adapter of the setup's libraries was trained on to the section "instruction": they are as unseen
/// as held-out tasks. Without a library nothing is moved. Throws as library::Library::open.
void move_unseen_tasks(EvalSetup& setup);

/// Runs the evaluation. Tasks of one section are computed together. Oracles are evaluated on tasks of section "train" alone: others have no
/// adapter of their own. The results say nothing of the machine.
/// Throws as check_setup, encode_rows and run_section.
results::Results evaluate(const methods::BaseModel& base, const EvalSetup& setup, Progress& progress);

}  // namespace quiver::recipes
