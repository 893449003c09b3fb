// How adapters score text of no task in particular: what makes their scores comparable.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/library/library.h"
#include "quiver/methods/base_model.h"
#include "quiver/methods/observe.h"
#include "quiver/methods/schema.h"
#include "quiver/routing/arrow.h"

namespace quiver::methods {

/// Where calibration text comes from.
struct CalibrationText {
  /// A file of texts, one a line (.jsonl, .jsonl.zst: the member "text" of each line), or empty: the base model's own samples, so that
  /// no text is needed at all.
  ContentFile file;
  std::int64_t num_prompts = 64;
  std::int64_t max_tokens = 64;  ///< of a prompt
  std::uint64_t seed = 42;       ///< of the samples

  /// `needs` is OptionText::needs of all these options.
  static void describe(auto& schema, const std::string& needs = {}) {
    schema.add(&CalibrationText::file, "calibration",
               {.help = "texts of no task in particular, one a line (.jsonl: the member text), to measure scores on; what was measured is "
                        "kept in the library",
                .unset = "samples of the base model (in chat: of users' messages)",
                .needs = needs});
    schema.add(&CalibrationText::num_prompts, "calibration_prompts",
               {.help = "number of these texts", .range = at_least(2), .needs = needs});
    schema.add(&CalibrationText::max_tokens, "calibration_tokens",
               {.help = "tokens of each that are read", .range = at_least(1), .needs = needs});
    schema.add(&CalibrationText::seed, "sample_seed", {.help = "draws the samples of the base model", .needs = needs});
  }
};

/// The prompts, the same for the same text, base and seed. A library keeps the base's samples as an artifact. Throws kUsage for a file
/// without texts.
std::vector<Prompt> calibration_prompts(const BaseModel& base, const library::Library& library, const CalibrationText& text,
                                        Progress& progress);

/// Means and standard deviations of every adapter's scores over the calibration text,
///
///   z_n(l, t) = (score_n(l, t) - mean_ln) / deviation_ln            over tokens, at projection l
///   Z_n = mean over l of (mean over t of score_n(l, t) - prompt_mean_ln) / prompt_deviation_ln    over prompts
struct ScoreCalibration {
  std::vector<std::string> paths;
  torch::Tensor mean, deviation;                ///< [L, N] float64
  torch::Tensor prompt_mean, prompt_deviation;  ///< [L, N] float64
  torch::Tensor prompt_z;                       ///< [P, N] float64: Z of the calibration prompts themselves
  /// The calibration of one projection's router.
  routing::Calibration at(const std::string& path) const;
  /// Z of prompts' mean scores [P, L, N], in the order of `paths`: [P, N].
  torch::Tensor pooled(const torch::Tensor& by_prompt) const;
};

/// Calibrates the scores of adapters of these names. What was measured is kept in the library by adapter, so that a new adapter costs one.
/// Throws kUsage for an adapter whose scores do not vary (its update is 0).
ScoreCalibration calibrate(const BaseModel& base, const library::Library& library, std::span<const std::string> names,
                           const Scoring& scoring, const CalibrationText& text, Progress& progress);

}  // namespace quiver::methods
