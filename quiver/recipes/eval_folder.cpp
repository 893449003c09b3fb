#include "quiver/recipes/eval_folder.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/results/lm_eval_form.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kRunFile = "run.json";
constexpr const char* kDocument = "quiver.json";
constexpr const char* kParts = "parts";

/// A task by all of its texts, and by what judges the answers.
std::string hash_of(const tasks::EvalTask& task) {
  auto rows = json::array();
  for (const auto& [id, source, targets, messages, where] : task.examples) {
    rows.push_back({id, source, targets});
    for (const auto& message : messages) rows.back().push_back({message.role, message.content});
  }
  for (const auto& [id, choices, contexts, continuations, label, where] : task.questions)
    rows.push_back({id, choices, contexts, continuations, label});
  for (const auto& [before, after] : task.programs) rows.push_back({before, after});
  const auto& [max_new_tokens, until, temperature, top_p, num_samples] = task.answers;
  const auto& [ignores_case, ignores_punctuation, ignores_numbers, patterns] = task.exact_match;
  const json content = {
      {"rows", rows},
      {"metrics", task.metrics},
      {"bare", task.is_bare},
      {"scores target", task.scores_target},
      {"answers", {max_new_tokens.value_or(-1), until, temperature.value_or(-1), top_p.value_or(-1), num_samples.value_or(-1)}},
      {"exact match", {ignores_case, ignores_punctuation, ignores_numbers, patterns}}};
  return sha256_hex(io::dump_json(content, task.name));
}

/// "private-arrow(top_k=2)" as a folder's name.
std::string folder_of(const std::string& method) {
  auto name = method;
  if (name.starts_with('.')) name[0] = '_';  // "..", as a damaged run.json may have it
  for (char& c : name) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    if (!is_plain) c = '_';
  }
  return name == method ? name : name + "-" + sha256_hex(method).substr(0, 8);
}

/// The first value in which two runs differ; members that one alone has count only where `is_all`.
std::optional<std::string> difference(const json& held, const json& run, bool is_all) {
  for (const auto& [key, value] : run.items()) {
    if (!held.contains(key)) {
      if (is_all) return format("{} is {} here, and nothing there", key, value.dump());
      continue;
    }
    if (held.at(key) != value) return format("{} is {} there and {} here", key, held.at(key).dump(), value.dump());
  }
  return std::nullopt;
}

/// The run that a folder holds; nothing without one. Throws kBadFormat for one that was damaged.
std::optional<json> held_run(const fs::path& file) {
  if (!fs::exists(file)) return std::nullopt;
  auto held = io::read_json_file(file);
  if (!held.is_object() || !held.contains("quiver_eval")) return std::nullopt;  // of another verb, or of another program
  io::require_int(held, "quiver_eval", file.string());
  for (const char* part : {"settings", "methods", "tasks"}) io::require_object(held, part, file.string());
  return held;
}

std::optional<std::string> difference_of_runs(const json& held, const json& run) {
  if (held.at("quiver_eval") != run.at("quiver_eval")) return "it is of another version of quiver eval";
  if (held.value("base", json()) != run.at("base"))
    return format("the base is {} there and {} here", held.value("base", json()).dump(), run.at("base").dump());
  if (auto found = difference(held.at("settings"), run.at("settings"), true)) return "setting " + *found;
  if (auto found = difference(held.at("tasks"), run.at("tasks"), false)) return "the content of task " + *found;
  if (auto found = difference(held.at("methods"), run.at("methods"), false)) return "the key of method " + *found;
  return std::nullopt;
}

/// Whether Quiver may have written a file of this name: "results_DATE.json" or "samples_TASK_DATE.jsonl". Dates of others have no "Z".
bool is_results_file(std::string_view name) {
  constexpr std::string_view kDate = "_dddd-dd-ddTdd-dd-ddZ";
  const bool is_results = name.starts_with("results_") && name.ends_with(".json");
  if (!is_results && !(name.starts_with("samples_") && name.ends_with(".jsonl"))) return false;
  name.remove_suffix(name.size() - name.rfind('.'));
  if (name.size() < kDate.size()) return false;
  name.remove_prefix(name.size() - kDate.size());
  return std::ranges::equal(name, kDate, [](char c, char like) { return like == 'd' ? c >= '0' && c <= '9' : c == like; });
}

/// Removes the files of results in a run's folder, but those to keep.
void remove_results(const fs::path& path, const json& run, const std::set<fs::path>& keep) {
  const auto methods = run.value("methods", json::object());
  for (const auto& [method, key] : methods.items()) {
    const auto folder = path / folder_of(method);
    if (!fs::is_directory(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (is_results_file(entry.path().filename().string()) && !keep.contains(entry.path())) fs::remove(entry.path());
    }
    if (fs::is_empty(folder)) fs::remove(folder);
  }
}

/// The texts that were asked, by the ids of samples.
std::map<std::string, results::SampleTexts> texts_of(const tasks::EvalTask& task) {
  std::map<std::string, results::SampleTexts> texts;
  for (const auto& question : task.questions) {
    auto& text = texts[question.id];
    for (std::size_t i = 0; i < question.contexts.size(); ++i) text.arguments.emplace_back(question.contexts[i], question.continuations[i]);
    text.row = {{"choices", question.choices}, {"label", question.label}};
  }
  for (const auto& example : task.examples) {
    if (task.kind == tasks::Kind::kText) {
      texts[example.id] = {.arguments = {{example.targets[0], nullptr}}, .row = {{"text", example.targets[0]}}};
      continue;
    }
    texts[example.id] = {.arguments = {{example.source, {{"until", task.answers.until}}}}, .row = {{"targets", example.targets}}};
  }
  return texts;
}

}  // namespace

json describe_run(const methods::BaseModel& base, const EvalSetup& setup) {
  json run = {{"quiver_eval", 1}, {"base", base.lm.content_hash()}, {"methods", json::object()}, {"tasks", json::object()}};
  for (const auto& method : setup.methods)
    run["methods"][method.name] = methods::begin_run_key("eval-1", base, use_of(method, setup.given)).hex();
  for (const auto& task : setup.tasks) run["tasks"][task.name] = hash_of(task);
  run["settings"] = {{"dtype", std::string(c10::toString(base.lm.placement().dtype))},
                     {"prompt format", data::describe(base.format)},
                     {"scoring", name_of(setup.rows.scoring)},
                     {"generation", setup.rows.generates},
                     {"max_new_tokens", setup.rows.max_new_tokens},
                     {"temperature", setup.sampling.temperature},
                     {"top_p", setup.sampling.top_p},
                     {"top_k", setup.sampling.top_k},
                     {"num_samples", setup.sampling.num_samples},
                     {"seed", setup.seed}};
  return run;
}

void begin_folder(const fs::path& path, const json& run, FolderUse use) {
  const auto text = path.string();
  const auto around = fs::absolute(path).lexically_normal();
  const auto parent = around.has_filename() ? around.parent_path() : around.parent_path().parent_path();
  if (!fs::is_directory(parent))
    fail(ErrorKind::kNotFound, "cannot make '{}': there is no folder '{}' (create it first)", text, parent.string());
  const auto file = path / kRunFile;
  if (fs::exists(path) && !fs::is_directory(path))
    fail(ErrorKind::kUsage, "'{}' is a file; a folder was expected (a file's name ends in .json)", text);
  if (const auto held = held_run(file)) {
    const auto differs = difference_of_runs(*held, run);
    if (use == FolderUse::kNew) {
      fail(ErrorKind::kUsage, "'{}' holds {}; `resume` goes on with it, `force` replaces it", text,
           differs ? "another run: " + *differs : "this run already");
    }
    if (use == FolderUse::kResume) {
      if (differs) fail(ErrorKind::kUsage, "'{}' cannot be resumed: {}; `force` replaces it, or name another folder", text, *differs);
      for (const char* part : {"methods", "tasks"}) {
        for (const auto& [name, key] : held->at(part).items()) {
          if (!run.at(part).contains(name))
            fail(ErrorKind::kUsage, "'{}' holds results of '{}': name it in `{}`, too, beside what is to be added", text, name, part);
        }
      }
    } else {
      remove_results(path, *held, {});
      fs::remove(path / kDocument);
      if (fs::exists(path / kParts)) io::WorkFolder(path / kParts).remove();
    }
  } else if (fs::exists(path) && !fs::is_empty(path)) {
    fail(ErrorKind::kUsage, "'{}' holds files, and no run.json of quiver eval: name a new or an empty folder", text);
  }
  fs::create_directory(path);
  io::write_file_atomic(file, io::dump_json(run, kRunFile, 1) + "\n");
}

void write_folder(const fs::path& path, const results::Results& results, const std::vector<tasks::EvalTask>& tasks, bool logs_samples) {
  std::set<fs::path> written;
  const auto write = [&](const fs::path& file, const std::string& text) {
    io::write_file_atomic(file, text);
    written.insert(file);
  };
  for (const auto& method : results.methods) {
    const auto folder = path / folder_of(method.name);
    fs::create_directory(folder);
    write(folder / results::lm_eval_results_file(results),
          io::dump_json(results::lm_eval_results(results, method.name), method.name, 2) + "\n");
    for (const auto& task : tasks) {
      if (!logs_samples) break;
      std::string lines;
      for (const auto& line : results::lm_eval_samples(results, method.name, task.name, texts_of(task)))
        lines += io::dump_json(line, task.name) + "\n";
      if (!lines.empty()) write(folder / results::lm_eval_samples_file(results, task.name), lines);
    }
  }
  write(path / kDocument, io::dump_json(results::to_json(results), kDocument, 1) + "\n");
  remove_results(path, io::read_json_file(path / kRunFile), written);
}

}  // namespace quiver::recipes
