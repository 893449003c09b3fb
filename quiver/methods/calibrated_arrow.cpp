// Arrow on scores measured against those on text of no task, with the evidence of the whole prompt or without.
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using CalibratedOptions = OptionsOf<TopK<4>, MixesOutputs, Softmax, Ties, CalibrationText>;

struct GatedOptions : OptionsOf<CalibratedOptions, TaskThreshold> {
  double pooled_weight = 3;
  static void describe(auto& schema) {
    OptionsOf<CalibratedOptions, TaskThreshold>::describe(schema);
    schema.add(&GatedOptions::pooled_weight, "pooled_weight", {.help = "of the prompt's evidence where it is clear"});
  }
};

RoutedAdapters route(const LibraryContext& in, const CalibratedOptions& options, const PromptEvidence& evidence,
                     const std::shared_ptr<routing::GroupTable>& bias) {
  RoutedAdapters routed{.adapters = in.adapters, .combine = options.combine};
  const routing::ArrowOptions arrow{.top_k = options.top_k_of(in.adapters.size()), .temperature = options.routing_temperature};
  for (const auto& [path, vectors] : evidence.scoring.vectors) {
    routed.routers.emplace(
        path, std::make_shared<routing::ArrowRouter>(finite(in, path, vectors).select(1, 0), arrow, evidence.calibration.at(path), bias));
  }
  return routed;
}

RoutedAdapters make_calibrated(const LibraryContext& in, const CalibratedOptions& options) {
  return route(in, options, arrow_evidence(in, options, options), nullptr);
}

/// Adds to the scores of a prompt's tokens its evidence as a whole, where that looks like a task.
RoutedAdapters make_gated(const LibraryContext& in, const GatedOptions& options) {
  const auto evidence = arrow_evidence(in, options, options);
  const auto bias = std::make_shared<routing::GroupTable>(static_cast<std::int64_t>(in.adapters.size()));
  auto routed = route(in, options, evidence, bias);
  const auto rows = [evidence, weight = options.pooled_weight, threshold = options.task_threshold](std::span<const Prompt> prompts,
                                                                                                   Progress& progress) {
    const auto z = evidence.of(prompts, progress);
    return z * task_share(z, evidence.calibration, threshold) * weight;  // a prompt of a known task is decided as a whole
  };
  routed.chooser = std::make_shared<TableChooser>(bias, in.names(), rows);
  return routed;
}

}  // namespace

Method calibrated_arrow() {
  return method_row(Family::kToken,
                    {"calibrated-arrow", "calibrated Arrow", "Arrow on scores measured against those on text of no task", "Quiver"},
                    make_calibrated);
}

Method gated_arrow() {
  return method_row(Family::kToken,
                    {"gated-arrow", "gated Arrow", "calibrated Arrow plus the evidence of the whole prompt, where that is clear", "Quiver"},
                    make_gated);
}

}  // namespace quiver::methods
