// A way of using a library: a row of the table in table.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/library/library.h"
#include "quiver/methods/base_model.h"
#include "quiver/methods/learning_plan.h"
#include "quiver/methods/schema.h"
#include "quiver/methods/table_chooser.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/checks.h"

namespace quiver::methods {

/// When a method decides.
enum class Family {
  kMerge,   ///< once for all: the library becomes one adapter
  kToken,   ///< at every token and projection
  kPrompt,  ///< once per prompt, from the prompt alone
  kLearnt,  ///< by training on rows of one task: methods of `quiver adapt`
};
const char* family_name(Family family);

/// Which adapters: one PEFT folder, or some of a library; neither is the base alone.
struct AdapterSource {
  std::string adapter;               ///< a PEFT folder; excludes `library`
  std::string library;               ///< a library folder
  std::vector<std::string> names;    ///< adapters of the library; empty: all of `kind`
  std::string kind;                  ///< "private", "cluster", ... (library::AdapterKind); empty: see library_members
  std::vector<std::string> general;  ///< adapters of the library whose mean is subtracted from the others (GenKnowSub)
  bool general_by_factors = false;   ///< as PEFT does, factor by factor; else exactly, update by update
  bool allow_other_base = false;
};

/// What a method is given beside its options.
struct LibraryContext {
  const BaseModel& base;
  const library::Library& library;
  const AdapterSource& source;
  std::vector<adapters::LoraAdapter> adapters;  ///< the members (library_members), loaded; none for a method that names its adapter
  Progress& progress;

  std::vector<std::string> names() const { return routing::names_of(adapters); }
};

/// Adapters, a router at every projection that they adapt, and what decides once per prompt.
struct RoutedAdapters {
  std::vector<adapters::LoraAdapter> adapters;  ///< those of the library first, in the order given
  std::map<std::string, routing::RouterPtr> routers;
  routing::Combine combine = routing::Combine::kParams;
  std::shared_ptr<TableChooser> chooser;  ///< null: nothing is decided per prompt
};

using MakeMerged = std::function<adapters::LoraAdapter(std::span<const adapters::LoraAdapter>, const OptionValues&)>;
using MakeNamed = std::function<adapters::LoraAdapter(const LibraryContext&, const OptionValues&)>;
using MakeRouted = std::function<RoutedAdapters(const LibraryContext&, const OptionValues&)>;
using MakePlan = std::function<LearningPlan(const OptionValues&)>;

/// The words of a row.
struct MethodText {
  std::string name;
  std::string label;   ///< as the papers write it
  std::string what;    ///< one line
  std::string source;  ///< where it comes from
};

/// One method. Values of options that `make` is given were checked by check_options.
struct Method : MethodText {
  Family family = Family::kMerge;
  std::vector<Option> options;
  /// MakeMerged: the members as one adapter. MakeNamed: an adapter that an option names. MakeRouted: kToken and kPrompt. MakePlan: kLearnt.
  std::variant<MakeMerged, MakeNamed, MakeRouted, MakePlan> make;
  std::string needs;          ///< of merges: what the adapters must agree on, besides paths, d_in, d_out and base
  bool needs_library = true;  ///< of kLearnt: whether it starts from a library

  /// "arrow", "oracle=NAME".
  std::string usage() const;
  /// Whether the method uses several adapters of the library, not one that an option names.
  bool reads_members() const { return needs_library && !std::holds_alternative<MakeNamed>(make); }
  bool has(std::string_view option) const { return find_option(options, option) != nullptr; }
  /// The option that stands behind "=" in a method's name: "name" of oracle=NAME; null for most.
  const Option* argument() const;
};

/// A row whose `make`, a function of LibraryContext and a struct of options, gives RoutedAdapters, or an adapter that an option names.
template <typename Made, typename Options>
Method method_row(Family family, const MethodText& text, Made (*make)(const LibraryContext&, const Options&)) {
  const auto schema = schema_of<Options>();
  return {text, family, schema.options(),
          std::function<Made(const LibraryContext&, const OptionValues&)>(
              [schema, make](const LibraryContext& in, const OptionValues& values) { return make(in, schema.read(values)); })};
}

}  // namespace quiver::methods
