#include "quiver/methods/parts.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/data/encode.h"
#include "quiver/data/tasks.h"
#include "quiver/methods/kept.h"
#include "quiver/routing/checks.h"
#include "quiver/routing/group_router.h"

namespace quiver::methods {

using adapters::LoraAdapter;

std::int64_t resolve_top_k(const std::optional<std::int64_t>& given, std::int64_t usual, std::size_t num_adapters) {
  const auto count = static_cast<std::int64_t>(num_adapters);
  if (given && (*given < 1 || *given > count)) {
    fail(ErrorKind::kUsage, "`top_k` {} does not fit a library of {} adapters; expected 1 to {}", *given, count, count);
  }
  return given ? *given : std::min(usual, count);
}

routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const LoraAdapter> adapters) {
  NoProgress quiet;
  routing::PrototypeMap stacked;
  std::vector<nlohmann::json> about;
  for (const auto& adapter : adapters) about.push_back({{"adapter", adapter.name}});
  const auto compute = [](std::span<const LoraAdapter* const> missing, Progress&) {
    std::vector<tensor::TensorMap> computed(missing.size());
    in_parallel(missing.size(), [&](std::size_t i) { computed[i] = routing::adapter_prototypes(*missing[i]); });
    return computed;
  };
  const std::vector<LoraAdapter> inputs(adapters.begin(), adapters.end());
  const auto each = kept_all_in<LoraAdapter>(library, "arrow-prototypes-3", std::move(about), inputs, compute, quiet);
  for (const auto& [path, first] : each.at(0)) {
    std::vector<torch::Tensor> rows;
    for (const auto& map : each) {
      const auto row = map.find(path);
      if (row == map.end()) return routing::prototypes(adapters);  // they do not fit together: let it say which
      rows.push_back(row->second);
    }
    stacked.emplace(path, torch::stack(rows));
  }
  return stacked;
}

routing::PrototypeMap prototypes_of(const LibraryContext& in, const Ties& ties) {
  auto own = library_prototypes(in.library, in.adapters);
  return ties.tie.empty()
             ? own
             : routing::tie_prototypes(in.adapters, std::move(own), model::maps_of_one_input(in.base.lm.spec()), ties.tie, ties.tie_by);
}

const std::vector<std::string>& tasks_of(const library::Library& library, const std::string& adapter, std::string_view missing) {
  const auto& tasks = library.at(adapter).info.tasks;
  if (tasks.empty()) {
    fail(ErrorKind::kNotFound, "adapter '{}' of library '{}' names no task, so there are no {}; add it again with its tasks", adapter,
         library.path().string(), missing);
  }
  return tasks;
}

std::vector<std::vector<Prompt>> task_prompts(const LibraryContext& in, const TaskTexts& texts) {
  std::vector<std::vector<Prompt>> prompts;
  for (const auto& adapter : in.adapters) {
    const auto& tasks = tasks_of(in.library, adapter.name, "texts of it");
    auto& mine = prompts.emplace_back();
    const auto each = std::max<std::int64_t>(1, texts.task_samples / static_cast<std::int64_t>(tasks.size()));
    for (const auto& task : tasks) {
      for (const auto& example : data::sample(data::load_task(texts.task_data.path, task).train, each, texts.sample_seed, task)) {
        mine.push_back(data::encode_prompt(in.base.tokenizer, in.base.format, example, in.base.lm.spec().max_positions));
      }
    }
  }
  return prompts;
}

void TextInputs::add_to(ArtifactKey& key) const {
  const auto& [lm, texts, of_paths] = *this;
  key.add(lm).add(texts).add_value(of_paths);
}

torch::Tensor finite(const LibraryContext& in, const std::string& path, const torch::Tensor& vectors) {
  return routing::finite_vectors(vectors, path, in.names());
}

torch::Tensor task_share(const torch::Tensor& pooled, const ScoreCalibration& calibration, double threshold) {
  const auto of_no_task = std::get<0>(calibration.prompt_z.max(1));  // [calibration prompts]
  const auto mean = of_no_task.mean(), deviation = of_no_task.var(/*unbiased=*/false).sqrt().clamp_min(1e-6);
  const auto largest = std::get<0>(pooled.max(1, /*keepdim=*/true));  // [P, 1]
  return ((largest - (mean + threshold * deviation)) / (deviation / 2)).sigmoid();
}

torch::Tensor PromptEvidence::of(std::span<const Prompt> prompts, Progress& progress) const {
  const auto summary = observe_scores(base, prompts, scoring, progress);
  check_finite(summary.by_prompt, summary.paths, adapters);
  return calibration.pooled(summary.by_prompt);
}

PromptEvidence arrow_evidence(const LibraryContext& in, const Ties& ties, const CalibrationText& text) {
  Scoring scoring;  // prototypes are vectors of one component
  for (const auto& [path, prototypes] : prototypes_of(in, ties)) scoring.vectors.emplace(path, prototypes.unsqueeze(1));
  auto calibration = calibrate(in.base, in.library, in.names(), scoring, text, in.progress);
  return {in.base.lm, std::move(scoring), std::move(calibration), in.names()};
}

torch::Tensor keep_top(const torch::Tensor& scores, std::int64_t top_k, const std::function<torch::Tensor(const torch::Tensor&)>& weigh) {
  const auto [sorted, order] = scores.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  const auto top = sorted.narrow(1, 0, top_k);
  return torch::zeros_like(scores).scatter_(1, order.narrow(1, 0, top_k), weigh(top));
}

torch::Tensor in_proportion(const torch::Tensor& top) { return top / top.sum(1, /*keepdim=*/true).clamp_min(1e-30); }

RoutedAdapters make_scored(const LibraryContext& in, routing::Combine combine, const Scoring& scoring, routing::ScoreOptions options,
                           const CalibrationText* calibration) {
  options.rule = scoring.rule;
  std::optional<ScoreCalibration> measured;
  if (calibration != nullptr) measured = calibrate(in.base, in.library, in.names(), scoring, *calibration, in.progress);
  RoutedAdapters routed{.adapters = in.adapters, .combine = combine};
  for (const auto& [path, vectors] : scoring.vectors) {
    routed.routers.emplace(path, std::make_shared<routing::ScoreRouter>(finite(in, path, vectors), options,
                                                                        measured ? measured->at(path) : routing::Calibration{}));
  }
  return routed;
}

RoutedAdapters route_by_prompt(const LibraryContext& in, routing::Combine combine, std::int64_t top_k, TableChooser::Rows rows) {
  auto weights = std::make_shared<routing::GroupTable>(static_cast<std::int64_t>(in.adapters.size()));
  const auto router = std::make_shared<routing::GroupRouter>(weights, top_k);
  RoutedAdapters routed{.adapters = in.adapters, .combine = combine};
  for (const auto& [path, pair] : in.adapters.front().pairs) routed.routers.emplace(path, router);
  routed.chooser = std::make_shared<TableChooser>(weights, in.names(), std::move(rows));
  return routed;
}

}  // namespace quiver::methods
