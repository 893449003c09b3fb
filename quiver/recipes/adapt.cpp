#include "quiver/recipes/adapt.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/cluster/fisher.h"
#include "quiver/cluster/nearest_group.h"
#include "quiver/data/prompt_format.h"
#include "quiver/eval/score.h"
#include "quiver/io/work_folder.h"
#include "quiver/merge/common.h"
#include "quiver/merge/mean.h"
#include "quiver/methods/kept.h"
#include "quiver/methods/parts.h"
#include "quiver/methods/table.h"
#include "quiver/metrics/rouge.h"
#include "quiver/model/generate.h"
#include "quiver/recipes/kept_json.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/train/fisher.h"
#include "quiver/train/mixture.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using adapters::LoraAdapter;
using nlohmann::json;

struct FisherInputs {
  const model::Model& base;
  const LoraAdapter& adapter;
  const std::vector<forest::Sequence>& examples;
  void add_to(methods::ArtifactKey& key) const {
    const auto& [lm, of_adapter, sequences] = *this;
    key.add(lm).add(of_adapter).add(sequences);
  }
};

/// What the value of LoraHub's objective at given weights depends on.
struct ObjectiveInputs {
  const methods::BaseModel& base;
  const std::vector<LoraAdapter>& members;
  const std::vector<data::Example>& rows;
  methods::SearchObjective objective;
  double penalty;
  std::int64_t max_new_tokens, max_length;
  void add_to(methods::ArtifactKey& key) const {
    const auto& [model, adapters, examples, kind, weight, answer_length, length] = *this;
    key.add(model).add(examples).add_values(adapters.size(), kind, weight, answer_length, length);
    for (const auto& adapter : adapters) key.add(adapter);
  }
};

/// Everything one adaptation shares between its steps.
class Adaptation {
 public:
  Adaptation(const methods::BaseModel& base, const AdaptSetup& setup, Progress& progress)
      : base_(base),
        setup_(setup),
        progress_(progress),
        work_(setup.work),
        task_(setup.training.tasks.at(0)),
        plan_(std::get<methods::MakePlan>(methods::learning_method(setup.method).make)(setup.options)),
        data_(load_training_data(base, setup.training.tasks, setup.training)) {
    if (setup.members.library.empty()) return;
    library_ = library::Library::open(setup.members.library);
  }

  Adapted run() {
    const auto& method = methods::learning_method(setup_.method);
    summary_ = {{"method", method.name}, {"task", task_}};
    if (method.needs_library && !library_) fail(ErrorKind::kUsage, "`method={}` starts from a library: give `library`", method.name);
    auto adapter = learn();
    return {std::move(adapter), std::move(summary_)};
  }

 private:
  LoraAdapter learn() {
    using methods::LearningStart;
    if (plan_.start == LearningStart::kFresh) return train_one(fresh(), setup_.method);
    members_ = nearest(load());
    check_mixable(members_, merge::Agreement::kFactors);
    summary_["members"] = routing::names_of(members_);
    if (plan_.start == LearningStart::kOne) {
      if (members_.size() != 1) {
        fail(ErrorKind::kUsage, "`method={}` starts from one adapter, not {}; `names=NAME` says which", setup_.method, members_.size());
      }
      return train_one(members_.front(), setup_.method);
    }
    if (plan_.start == LearningStart::kMean) return train_one(merge::mean_of_factors(members_), setup_.method);
    if (plan_.start == LearningStart::kSearch) return search();
    auto skills = members_;
    if (plan_.adds_new_skill) skills.insert(skills.begin(), target());
    return train_mixture(std::move(skills));
  }

  LoraAdapter fresh() const {
    return methods::initial_adapter(base_, task_, setup_.training.lora, setup_.training.train.seed, setup_.training.init);
  }

  std::vector<LoraAdapter> load() const {
    auto source = setup_.members;
    if (plan_.start == methods::LearningStart::kOne && source.kind.empty() && source.names.empty()) source.kind = "shared";
    return methods::load_members(base_, *library_, source);
  }

  // ---- Which adapters

  /// The members that the method uses, in name order.
  std::vector<LoraAdapter> nearest(std::vector<LoraAdapter> members) {
    auto count = plan_.retrieve;
    if (count == 0) count = std::min(plan_.usual_retrieve, static_cast<std::int64_t>(members.size()));
    if (count == 0) return members;
    if (count < 0 || count > static_cast<std::int64_t>(members.size())) {
      fail(ErrorKind::kUsage, "`retrieve` {} of {} adapters; expected 1 to {}", count, members.size(), members.size());
    }
    const auto likeness = likeness_of(members);
    std::vector<std::size_t> order(members.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater(), [&](std::size_t i) { return likeness[i]; });
    order.resize(static_cast<std::size_t>(count));
    std::ranges::sort(order);
    std::vector<LoraAdapter> kept;
    json scores = json::object();
    for (const auto i : order) {
      kept.push_back(members[i]);
      scores[members[i].name] = likeness[i];
    }
    summary_["retrieved"] = {{"by", name_of(plan_.retrieve_by)}, {"likeness", scores}};
    return kept;
  }

  static const char* name_of(methods::RetrieveBy by) {
    return by == methods::RetrieveBy::kRandom ? "random" : by == methods::RetrieveBy::kWeights ? "weights" : "fisher";
  }

  std::vector<double> likeness_of(const std::vector<LoraAdapter>& members) {
    using methods::RetrieveBy;
    if (plan_.retrieve_by == RetrieveBy::kWeights) return cluster::cosines_with(target(), members, {});
    std::vector<double> likeness;
    if (plan_.retrieve_by == RetrieveBy::kRandom) {
      RandomStream random(setup_.training.train.seed, "retrieve/" + task_);
      for (std::size_t i = 0; i < members.size(); ++i) likeness.push_back(random.uniform());
    } else {
      const auto of_target = train::fisher_diagonal(base_.lm, target(), some_examples());
      for (const auto& member : members) likeness.push_back(cluster::fisher_similarity(of_target, fisher_of_member(member)));
    }
    return likeness;
  }

  std::span<const forest::Sequence> some_examples() const {
    return std::span(data_.examples).first(std::min(data_.examples.size(), static_cast<std::size_t>(plan_.task_samples)));
  }

  /// On rows of the member's own tasks; kept in the library.
  tensor::TensorMap fisher_of_member(const LoraAdapter& member) const {
    const auto& tasks = methods::tasks_of(*library_, member.name, "rows of it");
    auto own = setup_.training;
    own.data = plan_.task_data;
    own.max_valid = 0;
    own.data_share = 1;
    own.max_examples = std::max<std::int64_t>(1, plan_.task_samples / static_cast<std::int64_t>(tasks.size()));
    const auto data = load_training_data(base_, tasks, own);
    const auto compute = [](const FisherInputs& in, Progress&) { return train::fisher_diagonal(in.base, in.adapter, in.examples); };
    return methods::kept_in(*library_, "fisher-3", {{"adapter", member.name}}, FisherInputs{base_.lm, member, data.examples}, compute,
                            progress_);
  }

  /// A new LoRA trained on the task: what retrieval compares with, and pi-tuning's own expert.
  const LoraAdapter& target() {
    if (!target_) target_ = train_one(fresh(), "target");
    return *target_;
  }

  // ---- Learning

  TrainingInputs inputs() const { return {base_.lm, data_, setup_.training.train}; }

  LoraAdapter train_one(LoraAdapter initial, const std::string& stage) {
    initial.name = task_;  // names the order of examples: the same for all methods
    initial.options.dropout = setup_.training.lora.dropout;
    methods::mark_base(initial, base_);
    auto trainer = inputs().trainer(initial);
    run(trainer, stage, methods::ArtifactKey("adapt-3").add(inputs()).add_initial(initial).hex());
    return trainer.adapter();
  }

  LoraAdapter train_mixture(std::vector<LoraAdapter> skills) {
    const auto& shape = plan_.shape;
    const double initial_logit = plan_.starts_equal ? 1.0 / static_cast<double>(skills.size()) : 0;
    for (auto& skill : skills) skill.options.dropout = setup_.training.lora.dropout;
    const MixtureInputs mixed{task_, skills, 1,
                              train::MixtureOptions{.shape = shape,
                                                    .train_skills = plan_.trains_skills,
                                                    .logit_rate_ratio = plan_.logit_rate / setup_.training.train.optimizer.learning_rate,
                                                    .initial_logit = initial_logit,
                                                    .seed = setup_.training.train.seed}};
    const auto mixture = mixed.make(base_.lm.placement());
    auto trainer = inputs().trainer(std::shared_ptr<train::Trainable>(mixture));
    run(trainer, format("{}-{}-{}", setup_.method, merge::mix_unit_name(shape.unit), shape.num_heads),
        methods::ArtifactKey("adapt-mixture-1").add(inputs()).add(mixed).hex());
    if (shape.unit == merge::MixUnit::kModel && shape.num_heads == 1) {
      const auto weights = merge::mix_weights(mixture->logits(trainer.result()).flatten().to(torch::kDouble), shape.rule);
      const auto numbers = tensor::elements<double>(weights, "weights of a mixture");
      summary_["weights"] = std::vector<double>(numbers.begin(), numbers.end());
    }
    auto adapter = mixture->task_adapter(trainer.result(), 0, task_);
    methods::mark_base(adapter, base_);
    return adapter;
  }

  void run(train::Trainer& trainer, const std::string& stage, const std::string& key) {
    const auto checkpoint = work_.file(stage + ".safetensors");
    train::run_training(trainer, format("{} ({})", task_, stage), checkpoint, key, setup_.training.checkpoint_seconds, progress_);
    trainer.save(checkpoint, key);  // a later stage may be interrupted
    summary_[stage == "target" ? "target_training" : "training"] = summary_of(trainer.stats());
  }

  // ---- LoraHub

  LoraAdapter search() {
    const auto task = data::load_task(setup_.training.data, task_);
    auto rows = training_rows(task, setup_.training);
    const auto half = (static_cast<std::int64_t>(rows.size()) + 1) / 2;
    const auto count = plan_.search_rows > 0 ? std::min(plan_.search_rows, static_cast<std::int64_t>(rows.size())) : half;
    rows.resize(static_cast<std::size_t>(count));
    auto options = plan_.search;
    options.seed = setup_.training.train.seed;
    const ObjectiveInputs on{base_, members_, rows, plan_.objective, plan_.penalty, plan_.max_new_tokens, setup_.training.max_length};
    const auto key = methods::ArtifactKey("lorahub-1").add(on).hex();
    const auto path = work_.file("search.json");
    auto known = kept_json(path, key).value_or(json::array());  // a search that is started again asks for the same points
    if (options.method == train::SearchMethod::kCobyla && options.max_evaluations < 3 * static_cast<std::int64_t>(members_.size())) {
      progress_.message(
          format("{} evaluations are few for COBYLA over {} weights, which takes {} to begin with; `search=one-plus-one` or cma-es, "
                 "more `evaluations`, or `retrieve` for fewer adapters",
                 options.max_evaluations, members_.size(), members_.size() + 1));
    }
    progress_.begin("search weights of " + std::to_string(members_.size()) + " adapters", options.max_evaluations, "evaluations");
    const auto objective = [&](std::span<const double> w) {
      throw_if_stopped("after an evaluation of LoraHub's search");
      const std::vector<double> weights(w.begin(), w.end());
      auto point = std::ranges::find(known, json(weights), [](const json& each) { return each.at("weights"); });
      if (point == known.end()) {
        known.push_back({{"weights", weights}, {"value", loss_with(weights, rows)}});
        keep_json(path, key, known);
        point = known.end() - 1;
      }
      const auto value = point->at("value").get<double>();
      progress_.advance(1, format("objective {:.4f}", value));
      return value;
    };
    const std::vector<double> start(members_.size(), 0.0);
    const auto found = train::minimize(objective, start, options);
    progress_.end();
    summary_["weights"] = found.x;
    summary_["search"] = {{"evaluations", found.evaluations}, {"rows", count}, {"value", found.value}, {"history", found.history}};
    auto adapter = merge::weighted_factors(members_, found.x);
    adapter.name = task_;
    return adapter;
  }

  double loss_with(const std::vector<double>& weights, const std::vector<data::Example>& rows) {
    auto mixed = merge::weighted_factors(members_, weights);
    mixed.options.dropout = 0;
    const auto model = methods::with_adapter(base_.lm, std::move(mixed));
    double magnitude = 0;
    for (const double w : weights) magnitude += std::abs(w);
    if (plan_.objective == methods::SearchObjective::kRouge) {
      return -mean_rouge(model, rows) + plan_.penalty * magnitude / static_cast<double>(weights.size());
    }
    return plan_.penalty * magnitude -
           eval::mean_log_likelihood(model, name(), base_.tokenizer, base_.format, rows, setup_.training.max_length);
  }

  std::string name() const { return format("a mixture of {} adapters", members_.size()); }

  double mean_rouge(const model::Model& model, const std::vector<data::Example>& rows) {
    std::vector<std::vector<std::int32_t>> prompts;
    const auto length = methods::longest_prompt(base_, setup_.training.max_length, plan_.max_new_tokens);
    model::PassNames names{.model = name(), .inputs = {}};
    for (const auto& row : rows) {
      prompts.push_back(data::encode_prompt(base_.tokenizer, base_.format, row, length));
      names.inputs.push_back(row.where);
    }
    const auto answers =
        model::generate(model, prompts, {.max_new_tokens = plan_.max_new_tokens, .stop_ids = data::stop_ids(base_.tokenizer, base_.format)},
                        {.names = names});
    double sum = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      auto prediction = base_.tokenizer.decode(answers[i], /*skip_special=*/true);
      prediction.erase(0, prediction.find_first_not_of(" \n"));
      sum += metrics::best_rouge_l(rows[i].targets, prediction);
    }
    return sum / static_cast<double>(rows.size());
  }

  const methods::BaseModel& base_;
  const AdaptSetup& setup_;
  Progress& progress_;
  io::WorkFolder work_;
  std::string task_;
  methods::LearningPlan plan_;
  TrainingData data_;
  std::optional<library::Library> library_;
  std::vector<LoraAdapter> members_;
  std::optional<LoraAdapter> target_;
  json summary_;
};

}  // namespace

Adapted adapt(const methods::BaseModel& base, const AdaptSetup& setup, Progress& progress) {
  const auto& method = methods::learning_method(setup.method);
  methods::check_options(method.name, method.options, setup.options);
  if (setup.training.tasks.size() != 1) fail(ErrorKind::kUsage, "one task is adapted to, not {}", setup.training.tasks.size());
  return Adaptation(base, setup, progress).run();
}

}  // namespace quiver::recipes
