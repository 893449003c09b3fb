#include "quiver/recipes/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iterator>
#include <map>
#include <ranges>
#include <set>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/base/module_path.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/recipes/eval_journal.h"
#include "quiver/results/summarize.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// All metrics, in the order in which reports have them.
std::vector<results::Metric> all_metrics() {
  using enum results::Better;
  return {{.name = "nll", .label = "NLL of the target", .unit = "nats/token", .better = kLower},
          {.name = "rouge_l", .label = "Rouge-L", .unit = "", .better = kHigher},
          {.name = "exact_match", .label = "Exact match", .unit = "", .better = kHigher},
          {.name = "acc", .label = "Accuracy", .unit = "", .better = kHigher},
          {.name = "acc_norm", .label = "Accuracy, length-normalised", .unit = "", .better = kHigher},
          {.name = "acc_bytes", .label = "Accuracy, per byte", .unit = "", .better = kHigher},
          {.name = "pass@1", .label = "Programs that pass", .unit = "", .better = kHigher},
          {.name = "pass@10", .label = "Of 10 programs one passes", .unit = "", .better = kHigher},
          {.name = "pass@100", .label = "Of 100 programs one passes", .unit = "", .better = kHigher},
          {.name = "word_perplexity", .label = "Perplexity, per word", .unit = "", .better = kLower},
          {.name = "byte_perplexity", .label = "Perplexity, per byte", .unit = "", .better = kLower},
          {.name = "bits_per_byte", .label = "Bits per byte", .unit = "bits", .better = kLower}};
}

/// The file of a part: the method's name where that names a file, else with a hash of it.
std::string part_name(const std::string& method, const std::string& section) {
  auto plain = method.substr(0, method.find('('));
  std::ranges::replace(plain, '/', '-');
  std::ranges::replace(plain, '=', '-');
  if (plain != method) plain += "-" + sha256_hex(method).substr(0, 8);
  return format("{}-{}.jsonl", plain, section);
}

/// What all samples of a part depend on.
struct PartInputs {
  const methods::BaseModel& base;
  const EvalSetup& setup;
  const EvalMethod& method;

  void add_to(methods::ArtifactKey& key) const {
    const auto& [model, options, of_method] = *this;
    // The other methods and the folder have no part in this one, and what is for the record is in the method's own options.
    const auto& [eval_tasks, eval_methods, given, for_the_record, row_options, sampling, programs, seed, work] = options;
    const auto& [scoring, generates, max_new_tokens, max_length] = row_options;  // the longest prompt is in the tokens
    const auto& [temperature, top_p, top_k, num_samples] = sampling;
    const auto& [python, isolation, limits, num_threads] = programs;
    key.add(model).add_values(static_cast<int>(scoring), generates, max_new_tokens, temperature, top_p, top_k, num_samples, seed);
    const auto& [wall_seconds, cpu_seconds, memory_bytes, processes, file_bytes, output_bytes] = limits;
    key.add_values(python, static_cast<int>(isolation), wall_seconds, cpu_seconds, memory_bytes, processes, file_bytes, output_bytes);
    methods::add_to_key(key.add(of_method.name), use_of(of_method, given));
  }
};

/// What the samples of one task depend on: prompts and references by their tokens; the rest by what judges the answers.
struct TaskInputs {
  const EvalRows& rows;

  void add_to(methods::ArtifactKey& key) const {
    const auto& task = rows.task;
    key.add_values(task.name, rows.fingerprint, task.metrics, task.num_rows());
    const auto& [max_new_tokens, until, temperature, top_p, num_samples] = task.answers;
    key.add_values(max_new_tokens.value_or(-1), until, temperature.value_or(-1), top_p.value_or(-1), num_samples.value_or(-1));
    const auto& [ignores_case, ignores_punctuation, ignores_numbers, patterns] = task.exact_match;
    key.add_values(ignores_case, ignores_punctuation, ignores_numbers, patterns);
    key.add(task.examples);
    for (const auto& [id, choices, contexts, continuations, label, where] : task.questions) key.add_values(id, choices, label);
    for (const auto& [before, after] : task.programs) key.add_values(before, after);
  }
};

EvalPartKeys keys_of(const PartInputs& inputs, const std::vector<EvalRows>& rows) {
  EvalPartKeys keys{.shared = methods::ArtifactKey("part-8").add(inputs).hex(), .tasks = {}};
  for (const auto& task : rows) keys.tasks.emplace_back(task.task.name, methods::ArtifactKey("task-1").add(TaskInputs{task}).hex());
  return keys;
}

std::string iso_time() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void add_tasks(results::Results& results, const std::vector<EvalRows>& tasks, const library::Library* library) {
  for (const auto& rows : tasks) {
    const auto& task = rows.task;
    results::Task entry{.name = task.name,
                        .kind = task.section,
                        .num_samples = static_cast<std::int64_t>(task.num_rows()),
                        .version = task.version,
                        .num_available = task.num_available,
                        .num_fewshot = task.num_fewshot,
                        .num_cut = rows.num_cut,
                        .fingerprint = rows.fingerprint,
                        .config = task.config};
    if (library != nullptr && task.section == "train") {
      for (const auto& [group, names] : library->groups()) {
        if (std::ranges::find(names, task.name) != names.end()) entry.group = group;
      }
    }
    results.tasks.push_back(std::move(entry));
  }
}

/// Training curves and clusters, as the library has them.
void add_library(results::Results& results, const library::Library& library) {
  for (const auto& [name, entry] : library.adapters()) {
    const auto& training = entry.info.training;
    if (!training.contains("losses")) continue;
    const auto where = format("adapter '{}' of library '{}'", name, library.path().string());
    io::require_array(training, "losses", where);
    const auto number = [&](const char* key) { return io::find_double(training, key, where).value_or(NAN); };
    results::Curve curve{.adapter = name,
                         .kind = library::kind_name(entry.info.kind),
                         .loss = results::numbers_of(training, "losses", where),
                         .tokens = number("tokens"),
                         .rows = number("rows"),
                         .seconds = number("seconds"),
                         .tokens_per_second = number("tokens_per_second")};
    for (std::size_t i = 0; i < curve.loss.size(); ++i) curve.steps.push_back(static_cast<double>(i + 1));
    results.training.push_back(std::move(curve));
    if (training.contains("settings")) {
      results.settings[std::string("training ") + library::kind_name(entry.info.kind)] = training.at("settings");
    }
  }
  const auto& provenance = library.groups_provenance();
  if (provenance.is_object() && provenance.contains("similarity")) {
    const auto origin = format("the groups of library '{}'", library.path().string());
    for (const char* key : {"adapters", "labels", "similarity"}) io::require_array(provenance, key, origin);
    results.clusters = results::clusters_of({{"clusters", provenance}}, origin);
    for (const char* key : {"sparsity", "seed", "by", "silhouette"}) results.settings["clustering"][key] = provenance.value(key, json());
  }
}

/// What readers should know of tasks and rows, beside what their samples tell.
void add_warnings(results::Results& results, const std::vector<tasks::EvalTask>& tasks) {
  for (const auto& task : tasks) {
    for (const auto& text : task.warnings)
      results.warnings.push_back({.kind = "task", .section = task.section, .task = task.name, .text = text});
  }
  for (const auto& task : results.tasks) {
    if (task.num_cut == 0) continue;
    results.warnings.push_back({.kind = "cut rows",
                                .section = task.kind,
                                .task = task.name,
                                .text = format("{} of {} rows are longer than the model's context and lost tokens at their left",
                                               task.num_cut, task.num_samples)});
  }
}

/// All that is known before anything is computed.
results::Results describe(const methods::BaseModel& base, const EvalSetup& setup, const library::Library* library) {
  const auto& config = base.lm.spec();
  results::Results results{.created = iso_time(),
                           .base = {.name = config.name,
                                    .fingerprint = base.lm.fingerprint(),
                                    .content = base.lm.content_hash(),
                                    .parameters = base.lm.num_parameters(),
                                    .dtype = results::dtype_name(c10::toString(base.lm.placement().dtype))},
                           .metrics = all_metrics()};
  results.settings["evaluation"] = {{"max_new_tokens", setup.rows.max_new_tokens},
                                    {"prompt format", data::describe(base.format)},
                                    {"seed", setup.seed},
                                    {"scoring", name_of(setup.rows.scoring)},
                                    {"temperature", setup.sampling.temperature},
                                    {"top_p", setup.sampling.top_p},
                                    {"top_k", setup.sampling.top_k}};
  results.settings["evaluation"].update(setup.options);
  for (const auto& method : setup.methods) {
    results.methods.push_back(
        {.name = method.name, .label = method.label, .description = method.description, .is_oracle = method.is_oracle()});
  }
  if (library != nullptr) add_library(results, *library);
  return results;
}

/// Shares per task and layer, averaged over the layer's projections.
results::LibraryRouting shares_of(const EvalMethod& method, const EvalPart& part) {
  results::LibraryRouting routing{.library = method.kind, .method = method.name, .adapters = part.adapters};
  for (const auto& [tag, by_path] : part.routing) {
    std::map<std::int64_t, std::pair<std::string, std::vector<double>>> layers;  // by number
    for (const auto& [path, sums] : by_path) {
      const auto block = block_of(path);
      auto& [name, share] = layers[block.number];
      name = block.name;
      share.resize(part.adapters.size(), 0.0);
      for (std::size_t i = 0; i < share.size(); ++i) share[i] += sums[i];
    }
    results::TaskRouting task{.task = tag};
    for (auto& [number, layer] : layers) {
      auto& [name, share] = layer;
      double total = 0;
      for (const double s : share) total += s;
      for (double& s : share) s = total > 0 ? s / total : 0;
      task.layers.push_back({name, std::move(share)});
    }
    routing.tasks.push_back(std::move(task));
  }
  return routing;
}

/// The libraries of all methods, by folder, and the given one.
std::map<std::string, library::Library> open_libraries(const EvalSetup& setup) {
  std::map<std::string, library::Library> libraries;
  const auto open = [&](const std::string& path) {
    if (!path.empty() && !libraries.contains(path)) libraries.emplace(path, library::Library::open(path));
  };
  open(setup.given.source.library);
  for (const auto& method : setup.methods) open(use_of(method, setup.given).source.library);
  return libraries;
}

/// The tasks by section, in the order in which sections appear.
std::vector<std::pair<std::string, std::vector<EvalRows>>> rows_by_section(const methods::BaseModel& base, const EvalSetup& setup) {
  std::vector<std::pair<std::string, std::vector<EvalRows>>> sections;
  for (const auto& task : setup.tasks) {
    auto found = std::ranges::find(sections, task.section, [](const auto& section) { return section.first; });
    if (found == sections.end()) found = sections.insert(found, {task.section, {}});
    found->second.push_back(encode_rows(base, task, setup.rows));
  }
  return sections;
}

}  // namespace

void check_setup(const EvalSetup& setup) {
  if (setup.methods.empty()) fail(ErrorKind::kUsage, "no evaluation method is named");
  if (setup.tasks.empty()) fail(ErrorKind::kUsage, "nothing to evaluate: no task is named");
  for (const auto& method : setup.methods) {
    if (std::ranges::count(setup.methods, method.name, &EvalMethod::name) > 1)
      fail(ErrorKind::kUsage, "evaluation method '{}' is named twice", method.name);
  }
  for (const auto& task : setup.tasks) {
    if (!setup.rows.generates && task.kind != tasks::Kind::kChoice && !task.scores_target)
      fail(ErrorKind::kUsage, "task '{}' needs answers, which `generates=false` leaves out", task.name);
  }
  if (std::ranges::find(setup.tasks, tasks::Kind::kProgram, &tasks::EvalTask::kind) != setup.tasks.end()) check_can_run(setup.programs);
}

void move_unseen_tasks(EvalSetup& setup) {
  const auto libraries = open_libraries(setup);
  if (libraries.empty()) return;
  std::set<std::string> seen;
  for (const auto& [path, library] : libraries) {
    for (const auto& [name, entry] : library.adapters())
      std::ranges::move(library::tasks_served(name, entry.info.tasks), std::inserter(seen, seen.end()));
  }
  for (auto& task : setup.tasks) {
    if (task.section == "train" && !seen.contains(task.name)) task.section = "instruction";
  }
}

results::Results evaluate(const methods::BaseModel& base, const EvalSetup& setup, Progress& progress) {
  check_setup(setup);
  const auto libraries = open_libraries(setup);
  io::WorkFolder work(setup.work);
  const auto given = libraries.find(setup.given.source.library);
  const auto* opened = given == libraries.end() ? nullptr : &given->second;
  auto results = describe(base, setup, opened);
  const SectionSetup section_setup{base, setup.given, libraries, setup.rows, setup.sampling, setup.programs, setup.seed};
  for (const auto& [section, rows] : rows_by_section(base, setup)) {
    add_tasks(results, rows, opened);
    for (const auto& method : setup.methods) {
      if (method.is_oracle() && section != "train") continue;
      auto keys = keys_of({base, setup, method}, rows);
      auto journal =
          work.is_set() ? EvalJournal(work.file(part_name(method.name, section)), std::move(keys)) : EvalJournal(std::move(keys));
      run_section(section_setup, method, section, rows, journal, progress);
      auto part = journal.take();
      if (section == "train" && !part.routing.empty()) results.routing.push_back(shares_of(method, part));
      std::ranges::move(part.samples, std::back_inserter(results.samples));
    }
  }
  results::summarize(results);
  add_warnings(results, setup.tasks);
  return results;
}

}  // namespace quiver::recipes
