#include "quiver/recipes/training_run.h"

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"
#include "quiver/methods/artifact_key.h"

namespace quiver::recipes {

using nlohmann::json;

json settings_json(const TrainingSetup& setup, const methods::BaseModel& base) {
  constexpr const char* kSchedules[] = {"linear", "cosine", "constant"};
  const auto& t = setup.train;
  json settings = {{"max_examples", setup.max_examples},
                   {"data_share", setup.data_share},
                   {"max_length", setup.max_length},
                   {"rank", setup.lora.rank},
                   {"alpha", setup.lora.alpha},
                   {"dropout", setup.lora.dropout},
                   {"use_rslora", setup.lora.use_rslora},
                   {"use_dora", setup.lora.use_dora},
                   {"target_modules", setup.lora.target_modules},
                   {"init", setup.init == adapters::LoraInit::kMttl ? "mttl" : "peft"},
                   {"epochs", t.epochs},
                   {"batch_size", t.batch_size},
                   {"learning_rate", t.optimizer.learning_rate},
                   {"schedule", kSchedules[static_cast<std::size_t>(t.optimizer.schedule)]},
                   {"lora_plus_ratio", t.optimizer.lora_plus_ratio},
                   {"warmup_fraction", t.optimizer.warmup_fraction},
                   {"weight_decay", t.optimizer.weight_decay},
                   {"max_grad_norm", t.optimizer.max_grad_norm},
                   {"loss_mean", t.loss_mean == train::LossMean::kExamples ? "examples" : "tokens"},
                   {"seed", t.seed},
                   {"share_prefixes", t.share_prefixes},
                   {"micro_batch_tokens", t.micro_batch_tokens},
                   {"max_valid", setup.max_valid},
                   {"validate_every", t.validate_every},
                   {"patience", t.patience}};
  if (!base.format.chat) return settings;
  settings["format"] = data::describe(base.format);
  settings["train_on"] = base.format.train_on == data::TrainOn::kAll ? "all" : "last";
  return settings;
}

std::vector<data::Example> training_rows(const data::Task& task, const TrainingSetup& setup) {
  if (!(setup.data_share > 0 && setup.data_share <= 1)) {
    fail(ErrorKind::kUsage, "a share of {} of the data; expected above 0 and at most 1", setup.data_share);
  }
  auto rows = data::sample(task.train, setup.max_examples, setup.train.seed, task.name);
  const auto kept = std::llround(setup.data_share * static_cast<double>(rows.size()));
  if (setup.data_share < 1) rows = data::sample(task.train, std::max<std::int64_t>(kept, 1), setup.train.seed, task.name);
  return rows;
}

TrainingData load_training_data(const methods::BaseModel& base, const std::vector<std::string>& tasks, const TrainingSetup& setup) {
  TrainingData data;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    const auto& name = tasks[t];
    const auto task = data::load_task(setup.data, name);
    if (task.train.empty()) fail(ErrorKind::kUsage, "task '{}' has no training rows in '{}'", name, setup.data.string());
    const auto encode = [&](const std::vector<data::Example>& rows, std::vector<forest::Sequence>& sequences) {
      for (const auto& example : rows) {
        sequences.push_back(
            data::encode_example(base.tokenizer, base.format, example, std::min(setup.max_length, base.lm.spec().max_positions)));
        sequences.back().group = static_cast<std::int32_t>(t);
      }
    };
    encode(training_rows(task, setup), data.examples);
    if (setup.max_valid == 0) continue;
    if (task.valid.empty())
      fail(ErrorKind::kUsage, "task '{}' has no validation rows in '{}'; train it without `max_valid`", name, setup.data.string());
    encode(data::sample(task.valid, setup.max_valid, setup.train.seed, name), data.validation);
  }
  return data;
}

void TrainingInputs::add_to(methods::ArtifactKey& key) const {
  const auto& [lm, rows, train_options] = *this;
  const auto& [examples, validation] = rows;
  key.add(lm).add(examples).add(validation).add(train_options);
}

void FreshAdapter::add_to(methods::ArtifactKey& key) const {
  const auto& [adapter_name, lora_options, drawn_by, draw_seed] = *this;
  key.add(adapter_name).add(lora_options).add_values(drawn_by, draw_seed);
}

adapters::LoraAdapter FreshAdapter::make(const methods::BaseModel& base) const {
  return methods::initial_adapter(base, name, options, seed, init);
}

void MixtureInputs::add_to(methods::ArtifactKey& key) const {
  const auto& [mixture_name, initial, tasks, mixture_options] = *this;
  key.add(mixture_name).add_values(initial.size(), tasks).add(mixture_options);
  for (const auto& skill : initial) key.add_initial(skill);
}

std::shared_ptr<train::Mixture> MixtureInputs::make(tensor::Placement placement) const {
  return std::make_shared<train::Mixture>(name, skills, num_tasks, options, placement.device,
                                          placement.dtype == torch::kDouble ? torch::kDouble : torch::kFloat);
}

json summary_of(const train::TrainStats& stats) {
  json summary = {{"steps", stats.steps},
                  {"tokens", stats.tokens},
                  {"rows", stats.rows},
                  {"seconds", stats.seconds},
                  {"tokens_per_second", stats.seconds > 0 ? static_cast<double>(stats.tokens) / stats.seconds : 0.0}};
  if (!stats.losses.empty()) {
    summary["first_loss"] = stats.losses.front();
    summary["last_loss"] = stats.losses.back();
  }
  if (!stats.validations.empty()) {
    auto& list = summary["validations"] = json::array();
    for (const auto& v : stats.validations) list.push_back({{"step", v.step}, {"loss", v.loss}});
    summary["best_step"] = stats.best_step;
  }
  return summary;
}

json training_record(const train::TrainStats& stats, const std::string& key, const json& settings) {
  auto record = summary_of(stats);
  record.update({{"losses", stats.losses}, {"key", key}, {"settings", settings}});
  return record;
}

train::TrainStats stored_stats(const json& training, const std::string& origin) {
  const auto integer = [&](const char* key) { return io::find_int(training, key, origin).value_or(0); };
  train::TrainStats stats{.steps = integer("steps"),
                          .tokens = integer("tokens"),
                          .rows = integer("rows"),
                          .seconds = io::find_double(training, "seconds", origin).value_or(0),
                          .best_step = integer("best_step")};
  if (training.contains("losses")) {
    for (const auto& loss : io::require_array(training, "losses", origin)) {
      if (!loss.is_number()) fail(ErrorKind::kBadFormat, "{}: 'losses' holds something other than numbers", origin);
      stats.losses.push_back(loss.get<double>());
    }
  }
  if (training.contains("validations")) {
    const auto where = origin + ": validations";
    for (const auto& v : io::require_array(training, "validations", origin)) {
      stats.validations.push_back({io::require_int(v, "step", where), io::require_double(v, "loss", where)});
    }
  }
  return stats;
}

}  // namespace quiver::recipes
