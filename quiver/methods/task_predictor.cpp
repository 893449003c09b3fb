// Task predictor (Ostapenko et al. 2024, TP): a classifier of prompts, learnt from texts of the tasks.
#include "quiver/train/task_predictor.h"

#include <torch/utils.h>

#include "quiver/methods/kept.h"
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using PredictorOptions = OptionsOf<TopK<4>, MixesOutputs, TaskTexts>;

/// What tells the texts of the adapters apart.
struct PredictorInputs {
  const model::Model& base;
  const std::vector<Prompt>& prompts;
  const std::vector<std::int64_t>& labels;  ///< of the prompts: indices of adapters
  std::int64_t num_adapters = 0;
  void add_to(ArtifactKey& key) const {
    const auto& [lm, texts, of_texts, count] = *this;
    key.add(lm).add(texts).add_values(of_texts, count);
  }
};

tensor::TensorMap fit_predictor(const PredictorInputs& inputs, Progress& progress) {
  progress.begin("look at the tasks", static_cast<std::int64_t>(inputs.prompts.size()), "prompts");
  const auto features = observe_hidden(inputs.base, inputs.prompts, progress);
  const auto predictor = train::train_task_predictor(features, inputs.labels, inputs.num_adapters, {});
  progress.end();
  return predictor.tensors();
}

RoutedAdapters make_task_predictor(const LibraryContext& in, const PredictorOptions& options) {
  const auto num_adapters = static_cast<std::int64_t>(in.adapters.size());
  if (num_adapters == 1) {  // nothing to tell apart
    return route_by_prompt(in, options.combine, 1, [](std::span<const Prompt> some, Progress&) {
      return torch::ones({static_cast<std::int64_t>(some.size()), 1});
    });
  }
  const auto prompts = task_prompts(in, options);
  std::vector<Prompt> texts;
  std::vector<std::int64_t> labels;
  for (std::size_t n = 0; n < prompts.size(); ++n) {
    texts.insert(texts.end(), prompts[n].begin(), prompts[n].end());
    labels.insert(labels.end(), prompts[n].size(), static_cast<std::int64_t>(n));
  }
  const PredictorInputs inputs{in.base.lm, texts, labels, num_adapters};
  const train::TaskPredictor predictor(
      kept_in(in.library, "task-predictor-3", {{"adapters", in.names()}}, inputs, fit_predictor, in.progress));
  const auto top_k = options.top_k_of(in.adapters.size());
  return route_by_prompt(in, options.combine, top_k,
                         [base = in.base.lm, predictor, top_k](std::span<const Prompt> some, Progress& progress) {
                           return keep_top(predictor.probabilities(observe_hidden(base, some, progress)), top_k, in_proportion);
                         });
}

}  // namespace

Method task_predictor() {
  return method_row(Family::kPrompt,
                    {"task-predictor", "task predictor", "the top k tasks of a classifier of prompts, learnt from texts of the tasks",
                     "Ostapenko et al. 2024, TP"},
                    make_task_predictor);
}

}  // namespace quiver::methods
