// What several methods share: groups of options, and steps of making routers.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/calibration.h"
#include "quiver/methods/method.h"
#include "quiver/methods/table_chooser.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/score_router.h"
#include "quiver/routing/tying.h"

namespace quiver::methods {

// ---- Groups of options. A method's struct of options derives from those it has, and its schema describes each.

/// `given`, or `usual`, or all of a smaller library. Throws kUsage for more than the library has.
std::int64_t resolve_top_k(const std::optional<std::int64_t>& given, std::int64_t usual, std::size_t num_adapters);

/// How many adapters are chosen; `kUsual` unless told.
template <std::int64_t kUsual>
struct TopK {
  std::optional<std::int64_t> top_k;
  std::int64_t top_k_of(std::size_t num_adapters) const { return resolve_top_k(top_k, kUsual, num_adapters); }

  static void describe(auto& schema) {
    schema.add(&TopK::top_k, "top_k",
               {.help = "adapters per token and projection, or per prompt",
                .range = at_least(1),
                .unset = format("{}, or all of a smaller library", kUsual)});
  }
};

/// What of the chosen adapters is mixed; `kUsual` unless told.
template <routing::Combine kUsual>
struct Mixing {
  routing::Combine combine = kUsual;

  static void describe(auto& schema) {
    schema.add_words(&Mixing::combine, "combine", {{"params", routing::Combine::kParams}, {"outputs", routing::Combine::kOutputs}},
                     {.help = "what is mixed: params, the factors (the paper), or outputs, the updates (PEFT)"});
  }
};
using MixesParams = Mixing<routing::Combine::kParams>;
using MixesOutputs = Mixing<routing::Combine::kOutputs>;

struct Softmax {
  double routing_temperature = 1;
  static void describe(auto& schema) {
    schema.add(&Softmax::routing_temperature, "routing_temperature", {.help = "divides the scores before the softmax", .range = kPositive});
  }
};

/// Of Arrow's prototypes: projections that decide as one (routing::tie_prototypes).
struct Ties {
  std::vector<std::string> tie;
  routing::TieBy tie_by = routing::TieBy::kConcat;
  static void describe(auto& schema) {
    schema.add(&Ties::tie, "tie",
               {.help = "projections of a block that share one Arrow prototype and so decide as one: q_proj,k_proj,v_proj (as the paper's "
                        "Phi-2, where they are one projection) or gate_proj,up_proj"});
    schema.add_words(
        &Ties::tie_by, "tie_by", {{"concat", routing::TieBy::kConcat}, {"sum", routing::TieBy::kSum}},
        {.help = "what that prototype is the first right singular vector of: the updates one above another, or their sum", .needs = "tie"});
  }
};

/// Where a prompt looks like a task.
struct TaskThreshold {
  double task_threshold = 4;
  static void describe(auto& schema) {
    schema.add(&TaskThreshold::task_threshold, "task_threshold",
               {.help = "a prompt looks like a task of the library where its evidence is so many standard deviations above that of text of "
                        "no task"});
  }
};

/// Texts of the adapters' tasks.
struct TaskTexts {
  TaskFolder task_data;
  std::int64_t task_samples = 16;
  std::uint64_t sample_seed = 42;
  static void describe(auto& schema) {
    schema.add(&TaskTexts::task_data, "task_data", {.help = "folder of the adapters' tasks"});
    schema.add(&TaskTexts::task_samples, "task_samples", {.help = "training rows that stand for an adapter's tasks", .range = at_least(1)});
    schema.add(&TaskTexts::sample_seed, "sample_seed", {.help = "draws these rows"});
  }
};

// ---- Prototypes and texts

/// Arrow prototypes of the adapters, taken from the library where it has them and stored there where it has not: one artifact per adapter,
/// so that a new adapter costs one.
routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const adapters::LoraAdapter> adapters);
/// The same, tied.
routing::PrototypeMap prototypes_of(const LibraryContext& in, const Ties& ties);

/// The tasks that an adapter of the library names. Throws kNotFound if it names none, so that there are no `missing` ("texts of it").
const std::vector<std::string>& tasks_of(const library::Library& library, const std::string& adapter, std::string_view missing);
/// Texts that stand for each adapter: training rows of its tasks, as prompts. Throws kNotFound for an adapter without tasks.
std::vector<std::vector<Prompt>> task_prompts(const LibraryContext& in, const TaskTexts& texts);

/// What a statistic of an adapter's texts is computed from.
struct TextInputs {
  const model::Model& base;
  const std::vector<Prompt>& prompts;
  const std::vector<std::string>& paths;  ///< of the projections that are looked at
  void add_to(ArtifactKey& key) const;
};

/// `vectors` [N, ...] that route at `path`, refused by the adapter's name where they are not finite.
torch::Tensor finite(const LibraryContext& in, const std::string& path, const torch::Tensor& vectors);

// ---- Decisions once per prompt

/// How much each prompt looks like a task of the library, [P, 1] in (0, 1): a share that rises from 0 to 1 where the largest evidence Z of
/// a prompt leaves what it is on text of no task. With m and s the mean and standard deviation of the largest Z over the calibration
/// prompts,
///
///   sigmoid((max_n Z_n - (m + threshold s)) / (s / 2))
torch::Tensor task_share(const torch::Tensor& pooled, const ScoreCalibration& calibration, double threshold);

/// What prompts say as a whole, by Arrow's scores.
struct PromptEvidence {
  model::Model base;
  Scoring scoring;
  ScoreCalibration calibration;
  std::vector<std::string> adapters;
  /// Z [P, N] of prompts.
  torch::Tensor of(std::span<const Prompt> prompts, Progress& progress) const;
};
PromptEvidence arrow_evidence(const LibraryContext& in, const Ties& ties, const CalibrationText& text);

/// The top_k largest of each row [P, N] kept with the weights of `weigh`, zeros elsewhere.
torch::Tensor keep_top(const torch::Tensor& scores, std::int64_t top_k, const std::function<torch::Tensor(const torch::Tensor&)>& weigh);
/// Each over their sum [P, k].
torch::Tensor in_proportion(const torch::Tensor& top);
/// One router for all projections, by a table of weights that `rows` fills.
RoutedAdapters route_by_prompt(const LibraryContext& in, routing::Combine combine, std::int64_t top_k, TableChooser::Rows rows);

// ---- Other methods that methods build on

using ArrowChoice = OptionsOf<TopK<4>, MixesParams, Softmax, Ties>;
RoutedAdapters make_arrow(const LibraryContext& in, const ArrowChoice& options);

/// LAG's cascade.
struct Shortlist {
  std::int64_t shortlist = 20;
  static void describe(auto& schema) {
    schema.add(&Shortlist::shortlist, "shortlist", {.help = "adapters that Arrow lets through", .range = at_least(1)});
  }
};
using LagChoice = OptionsOf<TopK<1>, MixesOutputs, Softmax, Shortlist>;
/// By |V x| of the vectors that `scoring` has, calibrated where `calibration` is given.
RoutedAdapters make_scored(const LibraryContext& in, routing::Combine combine, const Scoring& scoring, routing::ScoreOptions options,
                           const CalibrationText* calibration = nullptr);
RoutedAdapters make_lag(const LibraryContext& in, const LagChoice& options);

/// The mixture of the skills of Poly or MHR that serves `task`: an adapter of the skills' rank. Throws kNotFound if the library has no
/// skills of this kind or they were not trained on the task, kMismatch if the skills are not those that the logits are of.
adapters::LoraAdapter task_mixture(const library::Library& library, library::AdapterKind kind, const std::string& task);

}  // namespace quiver::methods
