// Centroid matching (Ostapenko et al. 2024, CM).
#include <torch/utils.h>

#include <cmath>

#include "quiver/methods/kept.h"
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

enum class CentroidScore { kCosine, kDot };

struct CentroidOptions : OptionsOf<TopK<4>, MixesParams, Softmax, TaskTexts> {
  CentroidScore centroid_score = CentroidScore::kCosine;
  static void describe(auto& schema) {
    OptionsOf::describe(schema);
    schema.add_words(
        &CentroidOptions::centroid_score, "centroid_score", {{"cosine", CentroidScore::kCosine}, {"dot", CentroidScore::kDot}},
        {.help = "the cosine of input and centroid (the paper), or dot, the input times the unit centroid over the root of its "
                 "width (its code)"});
  }
};

/// The mean of what enters each projection, by path.
tensor::TensorMap mean_inputs(const TextInputs& inputs, Progress& progress) {
  tensor::TensorMap means;
  for (const auto& [path, values] : observe_inputs(inputs.base, inputs.prompts, inputs.paths, progress))
    means.emplace(path, values.mean(0));
  return means;
}

RoutedAdapters make_centroids(const LibraryContext& in, const CentroidOptions& options) {
  const auto prompts = task_prompts(in, options);
  std::vector<std::string> paths;
  for (const auto& [path, pair] : in.adapters.front().pairs) paths.push_back(path);
  in.progress.begin("look at the tasks", static_cast<std::int64_t>(prompts.size()) * options.task_samples, "prompts");
  std::vector<tensor::TensorMap> means;
  for (const auto& mine : prompts) {
    means.push_back(kept_in(in.library, "mean-inputs-3", {}, TextInputs{in.base.lm, mine, paths}, mean_inputs, in.progress));
  }
  in.progress.end();
  RoutedAdapters routed{.adapters = in.adapters, .combine = options.combine};
  for (const auto& path : paths) {
    routing::ScoreOptions scores{.top_k = options.top_k_of(in.adapters.size()),
                                 .temperature = options.routing_temperature,
                                 .rule = {.input = routing::InputNorm::kUnit, .is_signed = true}};
    if (options.centroid_score == CentroidScore::kDot) {
      scores.temperature *= std::sqrt(static_cast<double>(means.front().at(path).numel()));
      scores.rule.input = routing::InputNorm::kNone;
    }
    std::vector<torch::Tensor> rows;
    for (const auto& mean : means) rows.push_back((mean.at(path) / mean.at(path).norm().clamp_min(1e-12)).unsqueeze(0));
    routed.routers.emplace(path, std::make_shared<routing::ScoreRouter>(finite(in, path, torch::stack(rows)), scores));
  }
  return routed;
}

}  // namespace

Method centroids() {
  return method_row(Family::kToken,
                    {"centroids", "centroids", "the cosine of x with the mean input on the adapter's tasks", "Ostapenko et al. 2024, CM"},
                    make_centroids);
}

}  // namespace quiver::methods
