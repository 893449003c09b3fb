#include "quiver/recipes/training_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"
#include "quiver/recipes/artifact_key.h"
#include "quiver/train/adapter_group.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* schedule_name(train::Schedule schedule) {
  switch (schedule) {
    case train::Schedule::kLinear: return "linear";
    case train::Schedule::kCosine: return "cosine";
    case train::Schedule::kConstant: return "constant";
  }
  return "linear";
}

}  // namespace

json settings_json(const TrainingSetup& setup) {
  const auto& t = setup.train;
  return {{"max_examples", setup.max_examples},
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
          {"schedule", schedule_name(t.optimizer.schedule)},
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
}

void add_format(json& settings, const BaseModel& base) {
  if (!base.format.chat) return;
  settings["format"] = data::describe(base.format);
  settings["train_on"] = base.format.train_on == data::TrainOn::kAll ? "all" : "last";
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

TrainingData load_training_data(const BaseModel& base, const std::vector<std::string>& tasks, const TrainingSetup& setup) {
  TrainingData data;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    const auto& name = tasks[t];
    const auto task = data::load_task(setup.data, name);
    if (task.train.empty()) fail(ErrorKind::kUsage, "task '{}' has no training rows in '{}'", name, setup.data.string());
    const auto encode = [&](const std::vector<data::Example>& rows, std::vector<forest::Sequence>& sequences) {
      for (const auto& example : rows) {
        sequences.push_back(
            data::encode_example(base.tokenizer, base.format, example, std::min(setup.max_length, base.llama.spec().max_positions)));
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

void TrainingInputs::add_to(ArtifactKey& key) const {
  const auto& [llama, rows, train_options] = *this;
  const auto& [examples, validation] = rows;
  key.add(llama).add(examples).add(validation).add(train_options);
}

void FreshAdapter::add_to(ArtifactKey& key) const {
  const auto& [adapter_name, lora_options, drawn_by, draw_seed] = *this;
  key.add(adapter_name).add(lora_options).add_values(drawn_by, draw_seed);
}

adapters::LoraAdapter FreshAdapter::make(const BaseModel& base) const {
  auto adapter = adapters::initial_adapter(name, options, base.llama.linears(), seed, init);
  adapter.base_model = base.llama.spec().name;
  adapter.base_fingerprint = base.llama.fingerprint();
  adapter.prompt_format = data::describe(base.format);
  return adapter;
}

void MixtureInputs::add_to(ArtifactKey& key) const {
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

train::TrainStats stored_stats(const json& training, const std::string& origin) {
  const auto integer = [&](const char* key) { return io::find_int(training, key, origin).value_or(0); };
  train::TrainStats stats;
  stats.steps = integer("steps");
  stats.tokens = integer("tokens");
  stats.rows = integer("rows");
  stats.seconds = io::find_double(training, "seconds", origin).value_or(0);
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
  stats.best_step = integer("best_step");
  return stats;
}

namespace {

using Clock = std::chrono::steady_clock;

void restore(const TrainingJob& job, Progress& progress) {
  fs::create_directories(job.checkpoint.parent_path());
  if (fs::exists(job.checkpoint) && !job.trainer->restore(job.checkpoint, job.key)) {
    progress.message(format("'{}' is of other settings; training '{}' from the start", job.checkpoint.string(), job.name));
  }
}

/// Where a stage that was begun goes on.
void announce(const TrainingJob& job, Progress& progress) {
  if (job.trainer->step() == 0) return;
  progress.message(format("'{}' goes on after step {} of {}", job.name, job.trainer->step(), job.trainer->num_steps()));
  progress.resume(job.trainer->stats().tokens);
}

}  // namespace

double run_training(train::Trainer& trainer, const std::string& name, const fs::path& checkpoint, const std::string& key,
                    double checkpoint_seconds, Progress& progress) {
  const TrainingJob job{&trainer, name, checkpoint, key};
  restore(job, progress);
  const double seconds_before = trainer.stats().seconds;
  progress.begin("train " + name, trainer.num_tokens(), "tokens");
  announce(job, progress);
  auto saved = Clock::now();
  while (!trainer.is_done()) {
    const auto tokens = trainer.next_batch_tokens();
    try {
      trainer.run_step();
    } catch (const Error& error) {
      trainer.save(checkpoint, key);  // as it was before the step
      fail(error.kind(), "{}; the state before that step is kept in '{}'", error.what(), checkpoint.string());
    }
    progress.advance(tokens, format("loss {:.3f}", trainer.stats().losses.back()));
    const bool stop = stop_requested();
    if (!trainer.is_done() && (stop || std::chrono::duration<double>(Clock::now() - saved).count() >= checkpoint_seconds)) {
      trainer.save(checkpoint, key);
      saved = Clock::now();
    }
    if (!trainer.is_done()) throw_if_stopped(format("after step {} of {} of adapter '{}'", trainer.step(), trainer.num_steps(), name));
  }
  progress.end();
  return trainer.stats().seconds - seconds_before;
}

void run_together(const BaseModel& base, const std::vector<TrainingJob>& jobs, double checkpoint_seconds, Progress& progress) {
  std::vector<train::Trainer*> members;
  std::int64_t num_tokens = 0;
  for (const auto& job : jobs) {
    restore(job, progress);
    members.push_back(job.trainer);
    num_tokens += job.trainer->num_tokens();
  }
  train::AdapterGroup group(base.llama, members);
  progress.begin(format("train {} adapters together", jobs.size()), num_tokens, "tokens");
  for (const auto& job : jobs) announce(job, progress);
  const auto save = [&jobs] {
    for (const auto& job : jobs) job.trainer->save(job.checkpoint, job.key);
  };
  auto saved = Clock::now();
  while (!group.is_done()) {
    const auto tokens = group.next_batch_tokens();
    try {
      group.run_step();
    } catch (const Error& error) {
      save();
      fail(error.kind(), "{}; the states are kept in '{}'", error.what(), jobs.front().checkpoint.parent_path().string());
    }
    double loss = 0;
    for (const auto* member : members) loss += member->stats().losses.back() / static_cast<double>(members.size());
    progress.advance(tokens, format("mean loss {:.3f}", loss));
    const bool stop = stop_requested();
    if (!group.is_done() && (stop || std::chrono::duration<double>(Clock::now() - saved).count() >= checkpoint_seconds)) {
      save();
      saved = Clock::now();
    }
    if (!group.is_done()) throw_if_stopped(format("while training {} adapters together", jobs.size()));
  }
  progress.end();
}

void remove_checkpoint(const fs::path& checkpoint) {
  std::error_code ignored;
  fs::remove(checkpoint, ignored);
  for (const auto& entry : fs::directory_iterator(checkpoint.parent_path(), ignored)) {
    if (entry.path().filename().string().starts_with("." + checkpoint.filename().string())) fs::remove(entry.path(), ignored);
  }
}

}  // namespace quiver::recipes
