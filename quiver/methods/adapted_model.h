// A model that computes with adapters: what scoring, generation and evaluation share.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/adapters/peft.h"
#include "quiver/library/library.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/composed_name.h"
#include "quiver/methods/method.h"
#include "quiver/routing/attach.h"

namespace quiver::methods {

/// Which adapters, and how those of a library are used.
struct AdapterUse {
  AdapterSource source;
  MethodUse method;
};

/// A key begun with all that an adapted model's numbers depend on: the base, its format of prompts, the method with all its options, and
/// adapters, texts of tasks and calibration text by content. `what` names the run and its version; the caller adds the rest. An "oracle"
/// without a name is given the library's tasks, too. Throws as adapters::load_peft and Library::open.
ArtifactKey begin_run_key(std::string_view what, const BaseModel& base, const AdapterUse& use);
/// The same without the base.
void add_to_key(ArtifactKey& key, const AdapterUse& use);

/// The base and what is added, for messages: "the base", "the base with adapter 'qnli'", "the base with method 'arrow' over library
/// 'library'".
std::string model_name(const AdapterUse& use);

/// The adapters of a source, in name order: those named; else those of `kind`; else the private and imported ones, or if there are none,
/// the cluster adapters. Throws kNotFound if that leaves none.
std::vector<std::string> library_members(const library::Library& library, const AdapterSource& source);
/// The adapters of library_members, loaded and checked against the base, less the mean of the general ones if there are any (these are
/// then no members).
std::vector<adapters::LoraAdapter> load_members(const BaseModel& base, const library::Library& library, const AdapterSource& source);
/// A warning, or nothing. Throws as adapters::check_fits.
std::optional<std::string> check_fits_base(const adapters::LoraAdapter& adapter, const BaseModel& base, bool allow_other_base);

/// The embedding and the head, as maps that adapters may adapt.
adapters::MapSizes outer_sizes(const model::Model& model);

/// One adapter of the library, by a method of the family kMerge. Throws kUsage for another method, and for weights in name order where the
/// source names the adapters in another order.
adapters::LoraAdapter merged_adapter(const BaseModel& base, const library::Library& library, const AdapterUse& use);
/// The adapters and routers of a method of the families kToken and kPrompt. Statistics and directions are taken from the library where it
/// has them and stored there where it has not. Throws kUsage for another method, kNotFound where task data is missing, and as calibrate.
RoutedAdapters routed_adapters(const BaseModel& base, const library::Library& library, const AdapterUse& use, Progress& progress);

/// The base computing with one adapter, on the base's device in float32: of linear maps, embedding and head, with the whole weights and
/// rows of tokens that it brings.
model::Model with_adapter(const model::Model& base, adapters::LoraAdapter adapter);

/// A model that computes with adapters. Immutable but for what its chooser remembers; thread-safe.
struct AdaptedModel {
  model::Model lm;
  std::shared_ptr<TableChooser> chooser;  ///< null: nothing is decided per prompt
  std::string name;                       ///< model_name of the use
  std::vector<std::string> routed = {};   ///< the adapters that routers choose from, by their indices; empty without routers

  /// The groups of prompts, for generation (TableChooser::groups_of); empty if nothing is decided per prompt.
  std::vector<routing::GroupLease> groups_of(std::span<const Prompt> prompts, Progress& progress) const;
  /// Forgets the prompts that groups were given to (TableChooser::forget).
  void forget_prompts() const;
  /// Sets the groups of sequences, each by what comes before its targets. They are theirs for as long as the leases live.
  [[nodiscard]] std::vector<routing::GroupLease> assign_groups(std::span<forest::Sequence> sequences, Progress& progress) const;
};

/// The base model computing with the chosen adapters. `recorder` counts what routers choose, and `observer` sees each decision; both must
/// outlive the model.
/// Throws kUsage for a contradictory source or a top_k beyond the library, kNotFound, kMismatch (adapters::check_fits).
AdaptedModel adapted_model(const BaseModel& base, const AdapterUse& use, Progress& progress, routing::RoutingRecorder* recorder = nullptr,
                           routing::RouteObserver* observer = nullptr);

}  // namespace quiver::methods
