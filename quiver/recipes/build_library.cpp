#include "quiver/recipes/build_library.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <span>

#include "quiver/base/error.h"
#include "quiver/data/prompt_format.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A matrix [T, T] of float64 as nested arrays.
json rows_of(const torch::Tensor& matrix) {
  json rows = json::array();
  for (std::int64_t i = 0; i < matrix.size(0); ++i) {
    const auto row = matrix[i].contiguous();
    const auto numbers = tensor::elements<double>(row, "a row of a matrix");
    rows.push_back(std::vector<double>(numbers.begin(), numbers.end()));
  }
  return rows;
}

constexpr BuildRecipe kRecipes[] = {
    {"private", "an adapter per task", "Ostapenko et al. 2024, sec. 3"},
    {"shared", "one adapter on the joint rows of the tasks", "Ostapenko et al. 2024, Shared"},
    {"mbc", "private adapters, their clusters by weight similarity, an adapter per cluster", "Ostapenko et al. 2024, alg. 1"},
    {"clusters", "an adapter per group of tasks that is there, however it came about ('quiver cluster')", "Ostapenko et al. 2024, table 2"},
    {"hidden", "clusters of tasks by the base's hidden states, an adapter per cluster", "Ostapenko et al. 2024, table 2, Embeddings"},
    {"tf-idf", "clusters of tasks by the words of their prompts, an adapter per cluster", "Ostapenko et al. 2024, table 2, with TF-IDF"},
    {"random-tasks", "groups of tasks by chance, an adapter per group", "Ostapenko et al. 2024, table 2, RandTask"},
    {"random-examples", "the joint rows cut into parts by chance, an adapter per part", "Ostapenko et al. 2024, table 2, RandExamples"},
    {"poly", "skills and, for each task, how it mixes them", "Ponti et al. 2023"},
    {"mhr", "the same, block by block of every projection", "Caccia et al. 2023"},
};

}  // namespace

std::span<const BuildRecipe> build_recipes() { return kRecipes; }

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

TrainedAdapter train_adapter(const methods::BaseModel& base, library::Library& library, const std::string& name,
                             const library::AdapterInfo& info, const TrainingSetup& setup, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  library::check_adapter_name(name);
  const auto data = load_training_data(base, info.tasks, setup);
  const double loading = seconds_since(start);
  auto trained = train_on(base, library, name, info, data, setup, progress);
  if (trained.is_new) trained.overhead_seconds += loading;
  return trained;
}

namespace {

/// A training that is about to run.
struct Prepared {
  TrainedAdapter result;
  library::AdapterInfo info;
  std::string key;
  json settings;
  std::unique_ptr<train::Trainer> trainer;  // null: the library has the adapter already, and the result its stats
  fs::path checkpoint;
  bool force = false;  // an adapter of this name is replaced
};

Prepared prepare(const methods::BaseModel& base, const library::Library& library, const std::string& name, const library::AdapterInfo& info,
                 const TrainingData& data, const TrainingSetup& setup, std::int64_t together = 1) {
  library::check_adapter_name(name);
  Prepared job{.result = {.name = name, .kind = info.kind}, .info = info, .settings = settings_json(setup, base), .force = setup.force};
  if (together > 1) job.settings["together"] = together;  // products over more rows round otherwise
  const TrainingInputs inputs{base.lm, data, setup.train};
  const FreshAdapter fresh{name, setup.lora, setup.init, setup.train.seed};
  const std::string prompt_format = data::describe(base.format);  // the library keeps it, the kind, the tasks and the group
  job.key = methods::ArtifactKey("training-1")
                .add(inputs)
                .add(fresh)
                .add(prompt_format)
                .add_values(together, info.kind, info.tasks, info.group)
                .hex();
  if (const auto* entry = library.find(name)) {
    if (entry->info.training.value("key", "") == job.key) {
      job.result.stats = stored_stats(entry->info.training, format("adapter '{}' of library '{}'", name, library.path().string()));
      return job;
    }
    if (!setup.force) {
      fail(ErrorKind::kMismatch,
           "library '{}' holds an adapter '{}' that was trained with other settings, data, dtype or base, or by another version of Quiver; "
           "`force=true` trains it again",
           library.path().string(), name);
    }
  }
  library.check_own_folder(name);
  job.trainer = std::make_unique<train::Trainer>(inputs.trainer(fresh.make(base)));
  job.checkpoint = library.path() / "checkpoints" / (name + ".safetensors");
  return job;
}

/// Puts what was trained into the library; the checkpoint is no longer needed.
TrainedAdapter store(library::Library& library, Prepared& job) {
  job.result.stats = job.trainer->stats();
  job.result.is_new = true;
  job.info.training = training_record(job.result.stats, job.key, job.settings);
  library.add(job.trainer->adapter(), job.info, job.force);
  train::remove_checkpoint(job.checkpoint);
  return job.result;
}

/// Private adapters of some tasks, in one batch.
std::vector<TrainedAdapter> train_together(const methods::BaseModel& base, library::Library& library, std::span<const std::string> tasks,
                                           const TrainingSetup& setup, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<Prepared> prepared;
  std::vector<train::TrainingJob> jobs;
  for (const auto& task : tasks) {
    const auto data = load_training_data(base, {task}, setup);
    prepared.push_back(
        prepare(base, library, task, {.kind = library::AdapterKind::kPrivate, .tasks = {task}}, data, setup, setup.together));
    auto& job = prepared.back();
    if (job.trainer != nullptr) jobs.push_back({job.trainer.get(), task, job.checkpoint, job.key});
  }
  double step_seconds = seconds_since(start);
  if (!jobs.empty()) train::run_together(base.lm, jobs, setup.checkpoint_seconds, progress);
  step_seconds = seconds_since(start) - step_seconds;
  std::vector<TrainedAdapter> trained;
  for (auto& job : prepared) trained.push_back(job.trainer != nullptr ? store(library, job) : job.result);
  if (!jobs.empty()) {
    const double overhead = (seconds_since(start) - step_seconds) / static_cast<double>(jobs.size());
    for (auto& adapter : trained) adapter.overhead_seconds = adapter.is_new ? overhead : 0;
  }
  return trained;
}

}  // namespace

TrainedAdapter train_on(const methods::BaseModel& base, library::Library& library, const std::string& name,
                        const library::AdapterInfo& info, const TrainingData& data, const TrainingSetup& setup, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  auto job = prepare(base, library, name, info, data, setup);
  if (job.trainer == nullptr) return job.result;
  const double step_seconds = train::run_training(*job.trainer, name, job.checkpoint, job.key, setup.checkpoint_seconds, progress);
  auto result = store(library, job);
  result.overhead_seconds = seconds_since(start) - step_seconds;
  return result;
}

std::vector<TrainedAdapter> train_private(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                          Progress& progress) {
  if (setup.together < 1) fail(ErrorKind::kUsage, "{} adapters in a batch; expected 1 or more", setup.together);
  for (const auto& task : setup.tasks) {  // a fault in the last task is told before the first is trained
    library::check_adapter_name(task);
    load_training_data(base, {task}, setup);
  }
  std::vector<TrainedAdapter> trained;
  const auto step = static_cast<std::size_t>(setup.together);
  for (std::size_t first = 0; first < setup.tasks.size(); first += step) {
    const auto some = std::span(setup.tasks).subspan(first, std::min(step, setup.tasks.size() - first));
    if (step == 1) {
      trained.push_back(
          train_adapter(base, library, some[0], {.kind = library::AdapterKind::kPrivate, .tasks = {some[0]}}, setup, progress));
    } else {
      for (auto& adapter : train_together(base, library, some, setup, progress)) trained.push_back(std::move(adapter));
    }
  }
  return trained;
}

TrainedAdapter train_shared(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup, Progress& progress) {
  return train_adapter(base, library, "shared", {.kind = library::AdapterKind::kShared, .tasks = setup.tasks}, setup, progress);
}

cluster::MbcResult cluster_library(library::Library& library, const std::vector<std::string>& names, const cluster::MbcOptions& options) {
  auto result = cluster::mbc(library.load_alike(names), options);
  std::map<std::string, std::vector<std::string>> groups;
  const auto clusters = result.clusters();
  for (std::size_t k = 0; k < clusters.size(); ++k) {
    auto& tasks = groups[format("c{}", k)];
    for (const auto& name : clusters[k]) {
      const auto served = library::tasks_served(name, library.at(name).info.tasks);
      tasks.insert(tasks.end(), served.begin(), served.end());
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
  return {{"adapters", result.names},      {"labels", result.labels},
          {"clusters", result.clusters()}, {"similarity", rows_of(result.similarity)},
          {"inertia", result.inertia},     {"silhouette", result.silhouette}};
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

std::vector<TrainedAdapter> train_clusters(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                           Progress& progress) {
  if (library.groups().empty()) fail(ErrorKind::kUsage, "library '{}' has no groups; run 'quiver cluster' first", library.path().string());
  std::vector<TrainedAdapter> trained;
  const auto groups = library.groups();
  for (const auto& [group, tasks] : groups) load_training_data(base, tasks, setup);
  // Adapters of groups that are no more, as after a clustering with a smaller K, would be routed over.
  std::vector<std::string> stale;
  for (const auto& [name, entry] : library.adapters()) {
    if (entry.info.kind != library::AdapterKind::kCluster || groups.contains(entry.info.group)) continue;
    library.check_own_folder(name);  // before the work
    stale.push_back(name);
  }
  for (const auto& [group, tasks] : groups) {
    trained.push_back(train_adapter(base, library, "cluster-" + group,
                                    {.kind = library::AdapterKind::kCluster, .tasks = tasks, .group = group}, setup, progress));
  }
  for (const auto& name : stale) {
    library.remove(name);
    progress.message(format("removed '{}', whose group is no more", name));
  }
  return trained;
}

}  // namespace quiver::recipes
