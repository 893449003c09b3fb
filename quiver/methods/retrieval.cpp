// LoRA-Retriever: the adapters whose tasks' texts are like the prompt.
#include <torch/utils.h>

#include "quiver/methods/kept.h"
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using RetrievalOptions = OptionsOf<TopK<4>, MixesOutputs, TaskTexts>;

/// The mean of the final hidden states.
tensor::TensorMap mean_hidden(const TextInputs& inputs, Progress& progress) {
  return {{"mean", observe_hidden(inputs.base, inputs.prompts, progress).mean(0)}};
}

RoutedAdapters make_retrieval(const LibraryContext& in, const RetrievalOptions& options) {
  const auto prompts = task_prompts(in, options);
  in.progress.begin("look at the tasks", static_cast<std::int64_t>(prompts.size()) * options.task_samples, "prompts");
  std::vector<torch::Tensor> of_tasks;
  for (const auto& mine : prompts) {
    of_tasks.push_back(kept_in(in.library, "mean-hidden-3", {}, TextInputs{in.base.lm, mine, {}}, mean_hidden, in.progress).at("mean"));
  }
  in.progress.end();
  // What all texts have in common says nothing of a task.
  const auto centre = torch::stack(of_tasks).mean(0);
  const auto unit = [centre](const torch::Tensor& t) {
    return (t - centre) / (t - centre).norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
  };
  const auto top_k = options.top_k_of(in.adapters.size());
  const auto rows = [base = in.base.lm, of_adapters = unit(torch::stack(of_tasks)), unit, top_k](std::span<const Prompt> texts,
                                                                                                 Progress& progress) {
    const auto likeness = unit(observe_hidden(base, texts, progress)).matmul(of_adapters.t());
    return keep_top(likeness, top_k,
                    [](const torch::Tensor& top) { return torch::full_like(top, 1.0 / static_cast<double>(top.size(1))); });
  };
  return route_by_prompt(in, options.combine, top_k, rows);
}

}  // namespace

Method retrieval() {
  return method_row(Family::kPrompt,
                    {"retrieval", "retrieval", "the top k adapters by the likeness of the prompt to texts of their tasks, equally",
                     "Zhao et al. 2024, LoRA-Retriever"},
                    make_retrieval);
}

}  // namespace quiver::methods
