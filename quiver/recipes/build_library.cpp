#include "quiver/recipes/build_library.h"

#include <chrono>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/data/encode.h"
#include "quiver/data/tasks.h"
#include "quiver/io/file.h"

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

/// All that the trained numbers depend on: not how much memory they took (checkpoint_activations), for one.
json settings_json(const TrainingSetup& setup) {
  const auto& t = setup.train;
  return {{"max_examples", setup.max_examples},
          {"max_length", setup.max_length},
          {"rank", setup.lora.rank},
          {"alpha", setup.lora.alpha},
          {"dropout", setup.lora.dropout},
          {"use_rslora", setup.lora.use_rslora},
          {"use_dora", setup.lora.use_dora},
          {"target_modules", setup.lora.target_modules},
          {"init", setup.init == lora::LoraInit::kMttl ? "mttl" : "peft"},
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

/// The examples of a training, and the hash of what they were made from.
struct TrainingData {
  std::vector<forest::Sequence> examples, validation;
  std::string sha256;
};

TrainingData load_training_data(const BaseModel& base, const std::vector<std::string>& tasks, const TrainingSetup& setup) {
  TrainingData data;
  Sha256 hash;
  for (const auto& name : tasks) {
    const auto task = data::load_task(setup.data, name);
    hash.update(name).update(task.sha256);
    if (task.train.empty()) fail(ErrorKind::kUsage, "task '{}' has no training rows in '{}'", name, setup.data.string());
    const auto encode = [&](const std::vector<data::Example>& rows, std::vector<forest::Sequence>& sequences) {
      for (const auto& example : rows) {
        sequences.push_back(data::encode_example(base.tokenizer, example.source, example.targets[0],
                                                 std::min(setup.max_length, base.llama.config().max_positions)));
      }
    };
    encode(data::sample(task.train, setup.max_examples, setup.train.seed, name), data.examples);
    if (setup.max_valid == 0) continue;
    if (task.valid.empty())
      fail(ErrorKind::kUsage, "task '{}' has no validation rows in '{}'; train it without --validate", name, setup.data.string());
    encode(data::sample(task.valid, setup.max_valid, setup.train.seed, name), data.validation);
  }
  data.sha256 = hash.hex();
  return data;
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

/// The stats of an adapter that the library holds already.
train::TrainStats stored_stats(const json& training) {
  train::TrainStats stats;
  stats.steps = training.value("steps", std::int64_t{0});
  stats.tokens = training.value("tokens", std::int64_t{0});
  stats.rows = training.value("rows", std::int64_t{0});
  stats.seconds = training.value("seconds", 0.0);
  stats.losses = training.value("losses", std::vector<double>{});
  for (const auto& v : training.value("validations", json::array())) stats.validations.push_back({v.at("step"), v.at("loss")});
  stats.best_step = training.value("best_step", std::int64_t{0});
  return stats;
}

/// Runs the trainer to its end, saving now and then.
void run_training(train::Trainer& trainer, const std::string& name, const fs::path& checkpoint, const std::string& key,
                  double checkpoint_seconds, Progress& progress) {
  using Clock = std::chrono::steady_clock;
  progress.begin("train " + name, trainer.num_tokens(), "tokens");
  if (trainer.step() > 0) {
    progress.message(format("'{}' goes on after step {} of {}", name, trainer.step(), trainer.num_steps()));
    progress.advance(trainer.stats().tokens, "");
  }
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
}

/// A matrix [T, T] of float64 as nested arrays.
json rows_of(const torch::Tensor& matrix) {
  json rows = json::array();
  for (std::int64_t i = 0; i < matrix.size(0); ++i) {
    const auto row = matrix[i].contiguous();
    rows.push_back(std::vector<double>(row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel()));
  }
  return rows;
}

/// Removes the checkpoint, and what writers of it that were killed left behind.
void remove_checkpoint(const fs::path& checkpoint) {
  std::error_code ignored;
  fs::remove(checkpoint, ignored);
  for (const auto& entry : fs::directory_iterator(checkpoint.parent_path(), ignored)) {
    if (entry.path().filename().string().starts_with("." + checkpoint.filename().string())) fs::remove(entry.path(), ignored);
  }
}

}  // namespace

json to_json(const TrainedAdapter& adapter) {
  auto summary = summary_of(adapter.stats);
  summary["name"] = adapter.name;
  summary["kind"] = library::kind_name(adapter.kind);
  summary["is_new"] = adapter.is_new;
  if (adapter.is_new) summary["overhead_seconds"] = adapter.overhead_seconds;
  return summary;
}

json training_summary(const std::vector<TrainedAdapter>& adapters) {
  json list = json::array();
  train::TrainStats total;
  double first_loss = 0, last_loss = 0;  // means over the adapters
  for (const auto& adapter : adapters) {
    list.push_back(to_json(adapter));
    total.steps += adapter.stats.steps;
    total.tokens += adapter.stats.tokens;
    total.rows += adapter.stats.rows;
    total.seconds += adapter.stats.seconds;
    if (!adapter.stats.losses.empty()) {
      first_loss += adapter.stats.losses.front() / static_cast<double>(adapters.size());
      last_loss += adapter.stats.losses.back() / static_cast<double>(adapters.size());
    }
  }
  auto sum = summary_of(total);
  sum["first_loss"] = first_loss;
  sum["last_loss"] = last_loss;
  return {{"adapters", list}, {"total", sum}};
}

TrainedAdapter train_adapter(const BaseModel& base, library::Library& library, const std::string& name, library::AdapterKind kind,
                             const std::string& group, const std::vector<std::string>& tasks, const TrainingSetup& setup,
                             Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  library::check_adapter_name(name);
  const auto data = load_training_data(base, tasks, setup);
  const auto settings = settings_json(setup);
  const auto key = sha256_hex(
      format("{}/{}/{}/{}/{}", name, settings.dump(), data.sha256, base.llama.fingerprint(), c10::toString(base.llama.placement().dtype)));
  TrainedAdapter result{.name = name, .kind = kind};
  if (const auto* entry = library.find(name)) {
    if (entry->info.training.value("key", "") == key) {
      result.stats = stored_stats(entry->info.training);
      return result;
    }
    if (!setup.force) {
      fail(ErrorKind::kMismatch,
           "library '{}' holds an adapter '{}' that was trained with other settings, data, dtype or base; --force trains it again",
           library.path().string(), name);
    }
  }
  auto initial = lora::initial_adapter(name, setup.lora, base.llama.projections(), setup.train.seed, setup.init);
  initial.base_model = base.llama.config().name;
  initial.base_fingerprint = base.llama.fingerprint();
  train::Trainer trainer(base.llama, initial, data.examples, setup.train, data.validation);
  const auto folder = library.path() / "checkpoints";
  fs::create_directories(folder);
  const auto checkpoint = folder / (name + ".safetensors");
  if (fs::exists(checkpoint) && !trainer.restore(checkpoint, key)) {
    progress.message(format("'{}' is of other settings; training '{}' from the start", checkpoint.string(), name));
  }
  const double seconds_before = trainer.stats().seconds;
  run_training(trainer, name, checkpoint, key, setup.checkpoint_seconds, progress);
  result.stats = trainer.stats();
  result.is_new = true;
  auto training = summary_of(result.stats);
  training["losses"] = result.stats.losses;
  training["key"] = key;
  training["settings"] = settings;
  library.add(trainer.adapter(), {.kind = kind, .tasks = tasks, .group = group, .training = training}, /*force=*/true);
  remove_checkpoint(checkpoint);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.overhead_seconds = seconds - (result.stats.seconds - seconds_before);
  return result;
}

std::vector<TrainedAdapter> train_private(const BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                          Progress& progress) {
  std::vector<TrainedAdapter> trained;
  for (const auto& task : setup.tasks) {
    trained.push_back(train_adapter(base, library, task, library::AdapterKind::kPrivate, "", {task}, setup, progress));
  }
  return trained;
}

TrainedAdapter train_shared(const BaseModel& base, library::Library& library, const TrainingSetup& setup, Progress& progress) {
  return train_adapter(base, library, "shared", library::AdapterKind::kShared, "", setup.tasks, setup, progress);
}

cluster::MbcResult cluster_library(library::Library& library, const std::vector<std::string>& names, const cluster::MbcOptions& options) {
  std::vector<lora::LoraAdapter> adapters;
  for (const auto& name : names) adapters.push_back(library.load(name));
  auto result = cluster::mbc(adapters, options);
  std::map<std::string, std::vector<std::string>> groups;
  const auto clusters = result.clusters();
  for (std::size_t k = 0; k < clusters.size(); ++k) {
    auto& tasks = groups[format("c{}", k)];
    for (const auto& name : clusters[k]) {
      const auto& of_adapter = library.at(name).info.tasks;
      tasks.insert(tasks.end(), of_adapter.begin(), of_adapter.end());
      if (of_adapter.empty()) tasks.push_back(name);
    }
  }
  auto provenance = to_json(result);
  provenance["sparsity"] = options.sparsity;
  provenance["seed"] = options.seed;
  provenance["by"] = options.similarity == cluster::Similarity::kFactors ? "factors" : "products";
  library.set_groups(groups, provenance);
  return result;
}

json to_json(const cluster::MbcResult& result) {
  return {{"adapters", result.names},
          {"labels", result.labels},
          {"clusters", result.clusters()},
          {"similarity", rows_of(result.similarity)},
          {"inertia", result.inertia},
          {"silhouette", result.silhouette}};
}

json to_json(const cluster::SweepResult& result) {
  json entries = json::array();
  for (const auto& entry : result.entries) {
    entries.push_back({{"num_clusters", entry.num_clusters},
                       {"inertia", entry.inertia},
                       {"silhouette", entry.silhouette ? json(*entry.silhouette) : json(nullptr)},
                       {"labels", entry.labels}});
  }
  return {{"adapters", result.names}, {"similarity", rows_of(result.similarity)}, {"sweep", entries}, {"suggested", result.suggested}};
}

std::vector<TrainedAdapter> train_clusters(const BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                           Progress& progress) {
  if (library.groups().empty()) fail(ErrorKind::kUsage, "library '{}' has no groups; run 'quiver cluster' first", library.path().string());
  std::vector<TrainedAdapter> trained;
  const auto groups = library.groups();
  for (const auto& [group, tasks] : groups) {
    trained.push_back(train_adapter(base, library, "cluster-" + group, library::AdapterKind::kCluster, group, tasks, setup, progress));
  }
  return trained;
}

}  // namespace quiver::recipes
