// Methods x tasks: likelihood and Rouge-L on training tasks and on held-out instruction tasks, accuracy on multiple
// choice, with every method compared with the base sample by sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/results/results.h"

namespace quiver::recipes {

/// The rows of one section of an evaluation.
struct EvalSection {
  std::filesystem::path data;  ///< empty: the section is left out
  std::vector<std::string> tasks;
  std::int64_t max_rows = 0;  ///< per task; 0: all
};

/// A method over the adapters of a kind; or the base, or what is given by adapters and a method of its own.
struct EvalMethod {
  enum class What { kBase, kGiven, kOverKind };
  What what = What::kOverKind;
  std::string name;                ///< as it was written, for results
  std::string kind;                ///< of the library's adapters
  methods::MethodUse use;          ///< an "oracle" without a name takes the adapter of the sample's own task
  std::string label, description;  ///< for reports
  bool is_oracle() const { return what == What::kOverKind && use.name == "oracle"; }
};

/// base, given, shared, KIND-oracle, and a kind with a method and its options: "private-arrow", "cluster/lag(shortlist=3)"
/// (methods::parse_name). Throws kUsage for another name, naming the nearest.
EvalMethod parse_eval_method(const std::string& name);

struct EvalSetup {
  EvalSection train;        ///< "test" rows of tasks that adapters were trained on: NLL of the target, Rouge-L
  EvalSection instruction;  ///< "test" rows of other tasks: the same
  EvalSection choice;       ///< multiple-choice sets: acc, acc_norm
  std::vector<EvalMethod> methods;
  methods::AdapterUse given;  ///< library, general and allow_other_base for all; the rest for the method kGiven
  methods::OptionValues options = methods::OptionValues::object();  ///< that were given for all methods, for the record
  bool generates = true;                                            ///< answers, for Rouge-L: what takes most of the time
  std::int64_t max_new_tokens = 64;
  std::int64_t max_length = 2048;
  std::uint64_t seed = 42;     ///< chooses the rows
  std::filesystem::path work;  ///< where finished parts are kept, so that a killed run goes on
};

/// The names of the usual methods that a library built by `build` can be evaluated with, base first.
std::vector<std::string> eval_methods();

/// Runs the evaluation. The results say nothing of the machine.
/// Throws kUsage for an unknown method or nothing to do, and as adapted_model.
results::Results evaluate(const methods::BaseModel& base, const EvalSetup& setup, Progress& progress);

}  // namespace quiver::recipes
