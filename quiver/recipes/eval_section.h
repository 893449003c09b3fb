// One method over the tasks of one section.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/recipes/eval_journal.h"
#include "quiver/recipes/eval_methods.h"
#include "quiver/recipes/eval_rows.h"
#include "quiver/recipes/run_programs.h"

namespace quiver::recipes {

/// How answers are drawn, where a task does not say.
struct AnswerSampling {
  double temperature = 0;  ///< 0 is greedy
  double top_p = 1;
  std::int64_t top_k = 0;        ///< 0: all
  std::int64_t num_samples = 1;  ///< programs for each prompt, for pass@k
};

/// What a section is evaluated with.
struct SectionSetup {
  const methods::BaseModel& base;
  const methods::AdapterUse& given;                          ///< EvalSetup::given
  const std::map<std::string, library::Library>& libraries;  ///< by folder: those of the methods
  RowOptions rows;
  AnswerSampling sampling;
  ProgramRunner programs;
  std::uint64_t seed = 42;
};

/// Computes what the journal does not have yet, chunk by chunk, and tells the journal. Of an oracle, tasks without an adapter of their own
/// are left out. Throws as adapted_model, eval::score_sequences and run_programs.
void run_section(const SectionSetup& setup, const EvalMethod& method, const std::string& section, const std::vector<EvalRows>& tasks,
                 EvalJournal& journal, Progress& progress);

}  // namespace quiver::recipes
