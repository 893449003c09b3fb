#include "quiver/recipes/adapter_bank.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/data/tasks.h"
#include "quiver/merge/mean.h"
#include "quiver/recipes/kept.h"
#include "quiver/recipes/reuse_methods.h"
#include "quiver/recipes/table_chooser.h"
#include "quiver/recipes/training_run.h"
#include "quiver/routing/checks.h"
#include "quiver/routing/directions.h"
#include "quiver/routing/group_router.h"
#include "quiver/routing/score_router.h"
#include "quiver/routing/tying.h"
#include "quiver/train/gates.h"
#include "quiver/train/task_predictor.h"

namespace quiver::recipes {
namespace {

using adapters::LoraAdapter;
using routing::Combine;
using routing::GroupTable;
using routing::names_of;

/// The choice's top_k, or `usual`, or all of a smaller library.
std::int64_t resolve_top_k(const AdapterChoice& choice, std::int64_t usual, std::size_t num_adapters) {
  const auto count = static_cast<std::int64_t>(num_adapters);
  if (choice.top_k < 0 || choice.top_k > count) {
    fail(ErrorKind::kUsage, "`top_k` {} does not fit a library of {} adapters; expected 1 to {}", choice.top_k, count, count);
  }
  return choice.top_k > 0 ? choice.top_k : std::min(usual, count);
}

routing::PrototypeMap prototypes_of(const library::Library& library, std::span<const LoraAdapter> adapters, const AdapterChoice& choice) {
  auto own = library_prototypes(library, adapters);
  return choice.tie.empty() ? own : routing::tie_prototypes(adapters, std::move(own), choice.tie, routing::parse_tie_by(choice.tie_by));
}

/// Arrow's prototypes as vectors of one component.
Scoring arrow_scoring(const library::Library& library, std::span<const LoraAdapter> adapters, const AdapterChoice& choice) {
  Scoring scoring;
  for (const auto& [path, prototypes] : prototypes_of(library, adapters, choice)) scoring.vectors.emplace(path, prototypes.unsqueeze(1));
  return scoring;
}

/// Texts that stand for each adapter: training rows of its tasks, as prompts.
std::vector<std::vector<Prompt>> task_prompts(const BaseModel& base, const library::Library& library, std::span<const std::string> names,
                                              const AdapterChoice& choice) {
  if (choice.task_samples < 1) fail(ErrorKind::kUsage, "`task_samples` {}; expected 1 or more", choice.task_samples);
  std::vector<std::vector<Prompt>> prompts;
  for (const auto& name : names) {
    const auto& tasks = library.at(name).info.tasks;
    if (tasks.empty()) {
      fail(ErrorKind::kNotFound, "adapter '{}' of library '{}' names no task, so there are no texts of it; add it again with its tasks",
           name, library.path().string());
    }
    auto& mine = prompts.emplace_back();
    const auto each = std::max<std::int64_t>(1, choice.task_samples / static_cast<std::int64_t>(tasks.size()));
    for (const auto& task : tasks) {
      for (const auto& example : data::sample(data::load_task(choice.task_data, task).train, each, choice.calibration.seed, task)) {
        mine.push_back(data::encode_prompt(base.tokenizer, base.format, example, base.llama.spec().max_positions));
      }
    }
  }
  return prompts;
}

/// What a statistic of an adapter's texts is computed from.
struct TextInputs {
  const model::Model& base;
  const std::vector<Prompt>& prompts;
  const std::vector<std::string>& paths;  ///< of the projections that are looked at
  void add_to(ArtifactKey& key) const {
    const auto& [llama, texts, of_paths] = *this;
    key.add(llama).add(texts).add_value(of_paths);
  }
};

/// The mean of what enters each projection, by path.
tensor::TensorMap mean_inputs(const TextInputs& inputs, Progress& progress) {
  tensor::TensorMap means;
  for (const auto& [path, values] : observe_inputs(inputs.base, inputs.prompts, inputs.paths, progress))
    means.emplace(path, values.mean(0));
  return means;
}

/// The mean of the final hidden states.
tensor::TensorMap mean_hidden(const TextInputs& inputs, Progress& progress) {
  return {{"mean", observe_hidden(inputs.base, inputs.prompts, progress).mean(0)}};
}

/// What tells the texts of the adapters apart.
struct PredictorInputs {
  const model::Model& base;
  const std::vector<Prompt>& prompts;
  const std::vector<std::int64_t>& labels;  ///< of the prompts: indices of adapters
  std::int64_t num_adapters = 0;
  void add_to(ArtifactKey& key) const {
    const auto& [llama, texts, of_texts, count] = *this;
    key.add(llama).add(texts).add_values(of_texts, count);
  }
};

tensor::TensorMap fit_predictor(const PredictorInputs& inputs, Progress& progress) {
  progress.begin("look at the tasks", static_cast<std::int64_t>(inputs.prompts.size()), "prompts");
  const auto features = observe_hidden(inputs.base, inputs.prompts, progress);
  const auto predictor = train::train_task_predictor(features, inputs.labels, inputs.num_adapters, {});
  progress.end();
  return predictor.tensors();
}

// ---- Decisions once per prompt

/// The top_k largest of each row [P, N] kept with the weights of `weigh`, zeros elsewhere.
torch::Tensor keep_top(const torch::Tensor& scores, std::int64_t top_k, const std::function<torch::Tensor(const torch::Tensor&)>& weigh) {
  const auto [sorted, order] = scores.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  const auto top = sorted.narrow(1, 0, top_k);
  return torch::zeros_like(scores).scatter_(1, order.narrow(1, 0, top_k), weigh(top));
}

/// How much each prompt looks like a task of the library, [P, 1] in (0, 1): a share that rises from 0 to 1 where the largest evidence Z of
/// a prompt leaves what it is on text of no task. With m and s the mean and standard deviation of the largest Z over the calibration
/// prompts,
///
///   sigmoid((max_n Z_n - (m + threshold s)) / (s / 2))
torch::Tensor task_share(const torch::Tensor& pooled, const ScoreCalibration& calibration, double threshold) {
  const auto of_no_task = std::get<0>(calibration.prompt_z.max(1));  // [calibration prompts]
  const auto mean = of_no_task.mean(), deviation = of_no_task.var(/*unbiased=*/false).sqrt().clamp_min(1e-6);
  const auto largest = std::get<0>(pooled.max(1, /*keepdim=*/true));  // [P, 1]
  return ((largest - (mean + threshold * deviation)) / (deviation / 2)).sigmoid();
}

/// What prompts say as a whole.
struct PromptEvidence {
  model::Model base;
  Scoring scoring;
  ScoreCalibration calibration;
  std::vector<std::string> adapters;
  /// Z [P, N] of prompts.
  torch::Tensor of(std::span<const Prompt> prompts, Progress& progress) const {
    const auto summary = observe_scores(base, prompts, scoring, progress);
    check_finite(summary.by_prompt, summary.paths, adapters);
    return calibration.pooled(summary.by_prompt);
  }
};

// ---- The banks

/// Makes the bank of one method. Members of a class because all methods share the same five things.
class BankMaker {
 public:
  BankMaker(const BaseModel& base, const library::Library& library, std::vector<LoraAdapter> adapters, const AdapterChoice& choice,
            Progress& progress)
      : base_(base), library_(library), names_(names_of(adapters)), choice_(choice), progress_(progress) {
    bank_.adapters = std::move(adapters);
  }

  AdapterBank make() {
    const auto& name = choice_.method;
    if (name == "arrow")
      arrow();
    else if (name == "spectr")
      scored(0, 0, 4, {.weighting = routing::Weighting::kEqual}, false, Combine::kParams);
    else if (name == "lag")
      lag();
    else if (name == "lag-base")
      lag_base();
    else if (name == "norm")
      scored(0, 1, 4, {}, true, Combine::kOutputs);
    else if (name == "spectral")
      scored(choice_.components, choice_.gamma, 4, {}, choice_.is_calibrated, Combine::kParams);
    else if (name == "centroids")
      centroids();
    else if (name == "phatgoose")
      phatgoose();
    else if (name == "arrow-mean")
      arrow_mean();
    else if (name == "calibrated-arrow")
      calibrated_arrow(false);
    else if (name == "gated-arrow")
      calibrated_arrow(true);
    else if (name == "pooled-arrow")
      pooled_arrow();
    else if (name == "logo")
      logo();
    else if (name == "retrieval")
      retrieval();
    else if (name == "task-predictor")
      task_predictor();
    else
      fail(ErrorKind::kInternal, "method '{}' has no bank", name);
    return std::move(bank_);
  }

 private:
  std::int64_t top_k(std::int64_t usual) const { return resolve_top_k(choice_, usual, names_.size()); }
  void combine(Combine usual) { bank_.combine = choice_.combine.empty() ? usual : parse_combine(choice_.combine); }
  routing::ArrowOptions arrow_options() const { return {.top_k = top_k(4), .temperature = choice_.temperature}; }

  /// `vectors` [N, ...] that route at `path`, refused by the adapter's name where they are not finite.
  torch::Tensor finite(const std::string& path, const torch::Tensor& vectors) const {
    return routing::finite_vectors(vectors, path, names_);
  }

  ScoreCalibration calibrated(const Scoring& scoring) const {
    return calibrate(base_, library_, names_, scoring, choice_.calibration, progress_);
  }

  void arrow() {
    combine(Combine::kParams);
    for (const auto& [path, prototypes] : prototypes_of(library_, bank_.adapters, choice_)) {
      bank_.routers.emplace(path, std::make_shared<routing::ArrowRouter>(finite(path, prototypes), arrow_options()));
    }
  }

  void scored(std::int64_t components, double gamma, std::int64_t usual_top_k, routing::ScoreOptions options, bool is_calibrated,
              Combine usual_combine) {
    if (components < 0) fail(ErrorKind::kUsage, "`components` {}; expected 0 (all) or more", components);
    if (!std::isfinite(gamma)) fail(ErrorKind::kUsage, "`gamma` {}; expected a finite number", gamma);
    combine(usual_combine);
    options.top_k = top_k(usual_top_k);
    options.temperature = choice_.temperature;
    const Scoring scoring{.vectors = routing::stacked_directions(bank_.adapters, components, gamma), .rule = options.rule};
    std::optional<ScoreCalibration> calibration;
    if (is_calibrated) calibration = calibrated(scoring);
    for (const auto& [path, vectors] : scoring.vectors) {
      bank_.routers.emplace(path, std::make_shared<routing::ScoreRouter>(finite(path, vectors), options,
                                                                         calibration ? calibration->at(path) : routing::Calibration{}));
    }
  }

  void lag() {
    const auto count = static_cast<std::int64_t>(names_.size());
    const auto shortlist = std::min(choice_.shortlist, count);
    scored(0, 0, 1, {.shortlist = shortlist}, false, Combine::kOutputs);
  }

  /// LAG times task_share, in eighths, so that prompts of one share may share prefixes.
  void lag_base() {
    lag();
    const auto shares = std::make_shared<GroupTable>(1);
    for (auto& [path, router] : bank_.routers) router = std::make_shared<routing::ShareRouter>(router, shares);
    bank_.chooser = std::make_shared<TableChooser>(
        shares, std::vector<std::string>{},
        [evidence = arrow_evidence(), threshold = choice_.task_threshold](std::span<const Prompt> prompts, Progress& progress) {
          return (task_share(evidence.of(prompts, progress), evidence.calibration, threshold) * 8).round() / 8;
        });
  }

  void centroids() {
    combine(Combine::kParams);
    if (choice_.centroid_score != "cosine" && choice_.centroid_score != "dot") {
      fail(ErrorKind::kUsage, "`centroid_score` '{}' is not one of cosine, dot", choice_.centroid_score);
    }
    const auto prompts = task_prompts(base_, library_, names_, choice_);
    std::vector<std::string> paths;
    for (const auto& [path, pair] : bank_.adapters.front().pairs) paths.push_back(path);
    progress_.begin("look at the tasks", static_cast<std::int64_t>(prompts.size()) * choice_.task_samples, "prompts");
    std::vector<tensor::TensorMap> means;
    for (const auto& mine : prompts) {
      means.push_back(kept_in(library_, "mean-inputs-3", {}, TextInputs{base_.llama, mine, paths}, mean_inputs, progress_));
    }
    progress_.end();
    const bool is_cosine = choice_.centroid_score == "cosine";
    for (const auto& path : paths) {
      routing::ScoreOptions options{
          .top_k = top_k(4), .temperature = choice_.temperature, .rule = {.input = routing::InputNorm::kUnit, .is_signed = true}};
      if (!is_cosine) {
        options.temperature *= std::sqrt(static_cast<double>(means.front().at(path).numel()));
        options.rule.input = routing::InputNorm::kNone;
      }
      std::vector<torch::Tensor> rows;
      for (const auto& mean : means) rows.push_back((mean.at(path) / mean.at(path).norm().clamp_min(1e-12)).unsqueeze(0));
      bank_.routers.emplace(path, std::make_shared<routing::ScoreRouter>(finite(path, torch::stack(rows)), options));
    }
  }

  /// The gates of an adapter by path, trained on rows of its tasks and kept in the library.
  tensor::TensorMap gates_of(const LoraAdapter& adapter) {
    const auto& entry = library_.at(adapter.name);
    if (entry.info.tasks.empty()) {
      fail(ErrorKind::kNotFound,
           "adapter '{}' of library '{}' names no task, so there are no rows to train its gates on; add it again with its tasks",
           adapter.name, library_.path().string());
    }
    constexpr std::int64_t kBatch = 4;  // mttl's
    TrainingSetup setup{.data = choice_.task_data, .tasks = entry.info.tasks};
    setup.max_examples = std::max<std::int64_t>(1, choice_.gate_steps * kBatch / static_cast<std::int64_t>(entry.info.tasks.size()));
    setup.train.seed = choice_.calibration.seed;
    setup.train.batch_size = kBatch;
    setup.train.optimizer = {.learning_rate = 1e-3, .warmup_fraction = 0.1};
    const auto data = load_training_data(base_, setup.tasks, setup);
    const auto steps = (static_cast<std::int64_t>(data.examples.size()) + kBatch - 1) / kBatch;
    setup.train.epochs = std::max<std::int64_t>(1, (choice_.gate_steps + steps - 1) / steps);
    const TrainingInputs inputs{base_.llama, data, setup.train};
    const auto key = ArtifactKey("phatgoose-3").add(inputs).add_initial(adapter).hex();
    if (auto found = library_.find_artifact(key)) return *found;
    const auto placement = base_.llama.placement();
    const auto gates =
        std::make_shared<train::Gates>(adapter, placement.device, placement.dtype == torch::kDouble ? torch::kDouble : torch::kFloat);
    auto trainer = inputs.trainer(std::shared_ptr<train::Trainable>(gates));
    run_training(trainer, adapter.name + " (gates)", library_.path() / "checkpoints" / (adapter.name + ".gates.safetensors"), key,
                 setup.checkpoint_seconds, progress_);
    auto result = gates->gates(trainer.result());
    library_.store_artifact(key, result, {{"what", "phatgoose-3"}, {"adapter", adapter.name}});
    remove_checkpoint(library_.path() / "checkpoints" / (adapter.name + ".gates.safetensors"));
    return result;
  }

  /// softmax of the top k of <LayerNorm v, LayerNorm x> / sqrt(d_in), outputs mixed.
  void phatgoose() {
    combine(Combine::kOutputs);
    if (choice_.gate_steps < 1) fail(ErrorKind::kUsage, "`gate_steps` {}; expected 1 or more", choice_.gate_steps);
    std::map<std::string, std::vector<torch::Tensor>> by_path;
    for (const auto& adapter : bank_.adapters) {
      for (auto& [path, gate] : gates_of(adapter)) {
        const auto scale = gate.var(/*unbiased=*/false).sqrt().clamp_min(1e-5);
        by_path[path].push_back(((gate - gate.mean()) / scale).unsqueeze(0));
      }
    }
    for (const auto& [path, gates] : by_path) {
      if (gates.size() != names_.size()) fail(ErrorKind::kMismatch, "not all adapters adapt '{}': they cannot be routed together", path);
      const auto vectors = finite(path, torch::stack(gates));  // [N, 1, d_in]
      routing::ScoreOptions options{.top_k = top_k(2),
                                    .temperature = choice_.temperature * std::sqrt(static_cast<double>(vectors.size(2))),
                                    .rule = {.input = routing::InputNorm::kLayerNorm, .is_signed = true}};
      bank_.routers.emplace(path, std::make_shared<routing::ScoreRouter>(vectors, options));
    }
  }

  void arrow_mean() {
    arrow();
    combine(Combine::kOutputs);
    if (bank_.combine != Combine::kOutputs) {
      fail(ErrorKind::kUsage, "arrow-mean mixes the updates of the mean and of single adapters: its `combine` is outputs");
    }
    routing::FallbackOptions options{.by = parse_fallback(), .strength = choice_.fallback_strength};
    bank_.adapters.push_back(merge::mean_of_factors(bank_.adapters));
    for (auto& [path, router] : bank_.routers) router = std::make_shared<routing::FallbackRouter>(router, options);
  }

  routing::Fallback parse_fallback() const {
    if (choice_.fallback == "constant") return routing::Fallback::kConstant;
    if (choice_.fallback == "entropy") return routing::Fallback::kEntropy;
    if (choice_.fallback == "margin") return routing::Fallback::kMargin;
    fail(ErrorKind::kUsage, "`fallback` '{}' is not one of constant, entropy, margin", choice_.fallback);
  }

  /// By Arrow's scores.
  PromptEvidence arrow_evidence() const {
    auto scoring = arrow_scoring(library_, bank_.adapters, choice_);
    auto calibration = calibrated(scoring);
    return {base_.llama, std::move(scoring), std::move(calibration), names_};
  }

  void calibrated_arrow(bool is_gated) {
    combine(Combine::kOutputs);
    const auto evidence = arrow_evidence();
    std::shared_ptr<GroupTable> bias;
    if (is_gated) {
      bias = std::make_shared<GroupTable>(static_cast<std::int64_t>(names_.size()));
      bank_.chooser = std::make_shared<TableChooser>(bias, names_,
                                                     [evidence, lambda = choice_.pooled_weight, threshold = choice_.task_threshold](
                                                         std::span<const Prompt> prompts, Progress& progress) {
                                                       const auto z = evidence.of(prompts, progress);
                                                       return z * task_share(z, evidence.calibration, threshold) *
                                                              lambda;  // a prompt of a known task is decided as a whole
                                                     });
    }
    for (const auto& [path, vectors] : evidence.scoring.vectors) {
      bank_.routers.emplace(path, std::make_shared<routing::ArrowRouter>(finite(path, vectors).select(1, 0), arrow_options(),
                                                                         evidence.calibration.at(path), bias));
    }
  }

  /// One router for all projections, by a table of weights that `rows` fills.
  void by_prompt(std::int64_t chosen, TableChooser::Rows rows) {
    combine(Combine::kOutputs);
    auto weights = std::make_shared<GroupTable>(static_cast<std::int64_t>(names_.size()));
    const auto router = std::make_shared<routing::GroupRouter>(weights, chosen);
    for (const auto& [path, pair] : bank_.adapters.front().pairs) bank_.routers.emplace(path, router);
    bank_.chooser = std::make_shared<TableChooser>(weights, names_, std::move(rows));
  }

  void pooled_arrow() {
    const auto chosen = top_k(1);
    by_prompt(chosen, [evidence = arrow_evidence(), chosen, temperature = choice_.temperature](std::span<const Prompt> prompts,
                                                                                               Progress& progress) {
      return keep_top(evidence.of(prompts, progress), chosen, [&](const torch::Tensor& top) { return (top / temperature).softmax(1); });
    });
  }

  void logo() {
    const Scoring scoring{.vectors = routing::stacked_directions(bank_.adapters, 0, 1), .rule = {}};
    const auto chosen = top_k(4);
    by_prompt(chosen, [base = base_.llama, scoring, chosen, names = names_](std::span<const Prompt> prompts, Progress& progress) {
      const auto summary = observe_scores(base, prompts, scoring, progress);
      check_finite(summary.last, summary.paths, names);
      const auto norms = summary.last.mean(1);  // [P, N]
      return keep_top(norms, chosen, [](const torch::Tensor& top) { return top / top.sum(1, /*keepdim=*/true).clamp_min(1e-30); });
    });
  }

  void retrieval() {
    const auto prompts = task_prompts(base_, library_, names_, choice_);
    progress_.begin("look at the tasks", static_cast<std::int64_t>(prompts.size()) * choice_.task_samples, "prompts");
    std::vector<torch::Tensor> rows;
    for (const auto& mine : prompts) {
      rows.push_back(kept_in(library_, "mean-hidden-3", {}, TextInputs{base_.llama, mine, {}}, mean_hidden, progress_).at("mean"));
    }
    progress_.end();
    // What all texts have in common says nothing of a task.
    const auto centre = torch::stack(rows).mean(0);
    const auto unit = [centre](const torch::Tensor& t) {
      return (t - centre) / (t - centre).norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
    };
    const auto of_adapters = unit(torch::stack(rows));  // [N, d]
    const auto chosen = top_k(4);
    by_prompt(chosen, [base = base_.llama, of_adapters, unit, chosen](std::span<const Prompt> texts, Progress& progress) {
      const auto likeness = unit(observe_hidden(base, texts, progress)).matmul(of_adapters.t());
      return keep_top(likeness, chosen,
                      [](const torch::Tensor& top) { return torch::full_like(top, 1.0 / static_cast<double>(top.size(1))); });
    });
  }

  void task_predictor() {
    if (names_.size() == 1) {  // nothing to tell apart
      return by_prompt(1, [](std::span<const Prompt> some, Progress&) { return torch::ones({static_cast<std::int64_t>(some.size()), 1}); });
    }
    const auto prompts = task_prompts(base_, library_, names_, choice_);
    std::vector<Prompt> texts;
    std::vector<std::int64_t> labels;
    for (std::size_t n = 0; n < prompts.size(); ++n) {
      texts.insert(texts.end(), prompts[n].begin(), prompts[n].end());
      labels.insert(labels.end(), prompts[n].size(), static_cast<std::int64_t>(n));
    }
    const auto num_adapters = static_cast<std::int64_t>(names_.size());
    const PredictorInputs inputs{base_.llama, texts, labels, num_adapters};
    const train::TaskPredictor predictor(kept_in(library_, "task-predictor-3", {{"adapters", names_}}, inputs, fit_predictor, progress_));
    const auto chosen = top_k(4);
    by_prompt(chosen, [base = base_.llama, predictor, chosen](std::span<const Prompt> some, Progress& progress) {
      const auto probabilities = predictor.probabilities(observe_hidden(base, some, progress));
      return keep_top(probabilities, chosen, [](const torch::Tensor& top) { return top / top.sum(1, /*keepdim=*/true).clamp_min(1e-30); });
    });
  }

  const BaseModel& base_;
  const library::Library& library_;
  std::vector<std::string> names_;
  const AdapterChoice& choice_;
  Progress& progress_;
  AdapterBank bank_;
};

}  // namespace

AdapterBank make_bank(const BaseModel& base, const library::Library& library, std::vector<LoraAdapter> adapters,
                      const AdapterChoice& choice, Progress& progress) {
  warn_of_format(adapters, base, progress);
  return BankMaker(base, library, std::move(adapters), choice, progress).make();
}

}  // namespace quiver::recipes
