// Methods as an evaluation names them: with the kind of adapters that each is used over.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quiver/methods/adapted_model.h"

namespace quiver::recipes {

/// A method over the adapters of a kind; or the base, one adapter, or what is given by adapters and a method of its own.
struct EvalMethod {
  enum class What { kBase, kGiven, kAdapter, kOverKind };
  What what = What::kOverKind;
  std::string name;                ///< as it was written, for results
  std::string path = {};           ///< of kAdapter its folder or file; of kOverKind a library instead of the given one, or nothing
  std::string kind;                ///< of the library's adapters
  methods::MethodUse use;          ///< an "oracle" without a name takes the adapter of the sample's own task
  std::string label, description;  ///< for reports
  bool is_oracle() const { return what == What::kOverKind && use.name == "oracle"; }
};

/// base, given, "adapter@FOLDER", shared, KIND-oracle, and a kind with a method and its options: "private-arrow",
/// "cluster/lag(shortlist=3)" (methods::parse_name). The last three are over another library than the given one where its folder follows:
/// "private-arrow@LIBRARY". Throws kUsage for another name, naming the nearest.
EvalMethod parse_eval_method(const std::string& name);

/// The names of the usual methods that a library built by `build` can be evaluated with, base first.
std::vector<std::string> eval_methods();

/// The adapters that a method means. An oracle's method is "oracle", whatever the task.
methods::AdapterUse use_of(const EvalMethod& method, const methods::AdapterUse& given);

/// The adapters of a method; for an oracle, of the given task. Nothing if there are none. Throws kUsage for a method over a library without
/// one.
std::optional<methods::AdapterUse> use_for(const EvalMethod& method, const methods::AdapterUse& given, const library::Library* library,
                                           const std::string& task);

}  // namespace quiver::recipes
