// Which adapters a model computes with: the one choice that scoring, generation and evaluation share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quiver/library/library.h"
#include "quiver/merge/registry.h"
#include "quiver/recipes/base_model.h"
#include "quiver/recipes/calibration.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/group_table.h"

namespace quiver::recipes {

class ArtifactKey;

/// No adapter at all, one PEFT folder, or a library with a method.
struct AdapterChoice {
  std::string adapter;                 ///< a PEFT folder; excludes `library`
  std::string library;                 ///< a library folder
  std::string method = "gated-arrow";  ///< of the library: a name of reuse_methods(); why this one: docs/decisions/0004-default-method.md
  std::vector<std::string> names;      ///< adapters of the library to use; empty: all of `kind`
  std::string kind;                    ///< "private", "cluster", ... (library::AdapterKind); empty: see library_members
  bool allow_other_base = false;

  // Of the methods that choose; each reads what it needs.
  std::int64_t top_k = 0;                 ///< 0: the method's (4, or 1), or all of a smaller library
  double temperature = 1;                 ///< of the softmax
  std::vector<std::string> tie;           ///< of Arrow's prototypes: projections that decide as one (routing::tie_prototypes)
  std::string tie_by = "concat";          ///< "concat" or "sum"
  std::string combine;                    ///< "params" or "outputs"; empty: the method's
  merge::MergeOptions merge;              ///< of the merges
  std::vector<std::string> general;       ///< adapters of the library whose mean is subtracted from the others (GenKnowSub)
  bool general_by_factors = false;        ///< as PEFT does, factor by factor; else exactly, update by update
  std::int64_t components = 0;            ///< spectral: singular directions of an adapter; 0: all
  double gamma = 0;                       ///< spectral: power of the singular values
  bool is_calibrated = false;             ///< spectral: on scores measured against those on text of no task
  std::string centroid_score = "cosine";  ///< centroids: "cosine" (the paper), or "dot" over sqrt(d_in) (its code)
  std::int64_t shortlist = 20;            ///< lag: adapters that Arrow lets through
  std::string fallback = "entropy";       ///< arrow-mean: "constant", "entropy" or "margin"
  double fallback_strength = 1;           ///< arrow-mean: routing::FallbackOptions
  double task_threshold = 4;              ///< lag-base, gated-arrow: where a prompt looks like a task, in deviations above text of no task
  double pooled_weight = 3;               ///< gated-arrow: of the prompt's evidence where it is clear
  CalibrationText calibration;            ///< for scores that are calibrated
  std::filesystem::path task_data = "data/train";  ///< texts of the adapters' tasks
  std::int64_t gate_steps = 100;                   ///< phatgoose: training steps of an adapter's gates
  std::int64_t task_samples = 16;                  ///< training rows of an adapter's tasks that stand for them
};

/// Adds all that a choice depends on: its options, and what is in the files that it names. An oracle is given the library's tasks, too.
void add_to_key(ArtifactKey& key, const AdapterChoice& choice);

/// The base and what the choice adds, for messages: "the base", "the base with adapter 'qnli'", "the base with method 'arrow' over library
/// 'library'".
std::string model_name(const AdapterChoice& choice);

/// The adapters a choice uses, in name order: those named; else those of `kind`; else the private and imported ones, or
/// if there are none, the cluster adapters. Throws kNotFound if that leaves none.
std::vector<std::string> library_members(const library::Library& library, const AdapterChoice& choice);
/// The members as one adapter, by a method of the family kMerge.
adapters::LoraAdapter merged_adapter(const BaseModel& base, const library::Library& library, const AdapterChoice& choice);

/// The adapters of library_members, loaded and checked against the base, less the mean of the general ones if there are any (these are
/// then no members).
std::vector<adapters::LoraAdapter> load_members(const BaseModel& base, const library::Library& library, const AdapterChoice& choice);

/// Says, as a warning, which adapters were trained on another format of prompts than the base is given. An unknown format is not spoken of.
void warn_of_format(std::span<const adapters::LoraAdapter> adapters, const BaseModel& base, Progress& progress);

/// Decides once per prompt, before what follows it is computed. Thread-safe.
class PromptChooser {
 public:
  virtual ~PromptChooser() = default;
  /// The group (forest::Sequence::group) of each prompt: prompts that are served alike may share one. Runs the base model.
  /// A group is the prompt's for as long as the lease lives.
  virtual std::vector<routing::GroupLease> groups_of(std::span<const Prompt> prompts, Progress& progress) = 0;
  /// Forgets all prompts, so that what follows does not depend on them. Leases go on.
  virtual void forget() = 0;
};

/// A model that computes with adapters. Immutable but for what its chooser remembers; thread-safe.
struct AdaptedModel {
  model::Model llama;
  std::shared_ptr<PromptChooser> chooser;  ///< null: nothing is decided per prompt
  std::string name;                        ///< model_name of the choice

  /// The groups of prompts, for generation (PromptChooser::groups_of); empty if nothing is decided per prompt.
  std::vector<routing::GroupLease> groups_of(std::span<const Prompt> prompts, Progress& progress) const;
  /// Forgets the prompts that groups were given to (PromptChooser::forget).
  void forget_prompts() const;
  /// Sets the groups of sequences, each by what comes before its targets. They are theirs for as long as the leases live.
  [[nodiscard]] std::vector<routing::GroupLease> assign_groups(std::span<forest::Sequence> sequences, Progress& progress) const;
};

/// Throws kUsage for a name that is not "params" or "outputs".
routing::Combine parse_combine(const std::string& text);

/// Arrow prototypes of the adapters, taken from the library where it has them and stored there where it has not: one
/// artifact per adapter, so that a new adapter costs one.
routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const adapters::LoraAdapter> adapters);

/// The base model computing with the chosen adapters. `recorder`, which must outlive the model, counts what routers choose.
/// Throws kUsage for a contradictory choice or a top_k beyond the library, kNotFound, kMismatch (check_fits).
AdaptedModel adapted_model(const BaseModel& base, const AdapterChoice& choice, Progress& progress,
                           routing::RoutingRecorder* recorder = nullptr);

}  // namespace quiver::recipes
