#include "quiver/tasks/task_file.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/utf8.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/tasks/declared_task.h"
#include "quiver/tasks/rows.h"
#include "quiver/tasks/task_keys.h"

namespace quiver::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kChoiceFields[] = {"choices", "context", "label", "mode", "continuation"};
constexpr const char* kAnswerFields[] = {"source", "instruction", "input", "prompt", "messages", "target", "targets", "completion"};
constexpr const char* kTextField = "text";

bool holds_rows(const fs::path& path) { return path.string().ends_with(".jsonl") || path.string().ends_with(".jsonl.zst"); }

bool is_text(const fs::path& path) { return path.extension() == ".txt"; }

/// The file's name without its ending.
std::string stem_of(const fs::path& path) { return path.extension() == ".zst" ? path.stem().stem().string() : path.stem().string(); }

void check_exists(const fs::path& path) {
  if (fs::is_regular_file(path)) return;
  std::vector<std::string> others;
  if (const auto folder = io::folder_of(path); fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (is_task_file(entry.path().string())) others.push_back(entry.path().filename().string());
    }
  }
  std::ranges::sort(others);
  fail(ErrorKind::kNotFound, "there is no task file '{}'{}", path.string(), did_you_mean(path.filename().string(), others));
}

/// What the rows of a file are, before they are read one by one.
struct Shape {
  Kind kind = Kind::kAnswer;
  std::vector<std::string> splits;  ///< of each row; "train" where it names none
};

/// What a row is. A row that names neither choices nor a text is to have an answer.
Kind kind_of(const json& row) {
  if (row.contains("choices")) return Kind::kChoice;
  const auto is_there = [&](const char* field) { return row.contains(field); };
  return row.contains(kTextField) && std::ranges::none_of(kAnswerFields, is_there) ? Kind::kText : Kind::kAnswer;
}

/// Refuses a row that has a field of another shape.
void check_shape(const json& row, const std::string& where, Kind kind, const std::string& first) {
  const auto* shape = kind == Kind::kChoice ? "choices" : kind == Kind::kText ? "a text" : "an answer";
  const auto check = [&](const auto& others, const char* other) {
    for (const char* field : others) {
      if (row.contains(field))
        fail(ErrorKind::kBadFormat, "{}: the row has '{}' of a row with {}; {} has rows with {}, and a file has rows of one kind", where,
             field, other, first, shape);
    }
  };
  if (kind != Kind::kChoice) check(kChoiceFields, "choices");
  if (kind != Kind::kAnswer) check(kAnswerFields, "an answer");
}

Shape shape_of(const fs::path& path) {
  io::JsonLinesReader reader(path);
  Shape shape;
  std::string first;
  while (const auto row = reader.next()) {
    const auto where = reader.where();
    if (!row->is_object()) fail(ErrorKind::kBadFormat, "{}: a row is {}; expected an object", where, row->type_name());
    if (first.empty()) {
      first = where;
      shape.kind = kind_of(*row);
    }
    check_shape(*row, where, shape.kind, first);
    const auto split = io::find_string(*row, "split", where).value_or("train");
    if (split != "train" && split != "valid" && split != "validation" && split != "test")
      fail(ErrorKind::kBadFormat, "{}: split '{}' is not one of train, valid, test", where, split);
    shape.splits.push_back(split == "validation" ? "valid" : split);
  }
  if (first.empty()) fail(ErrorKind::kBadFormat, "'{}' holds no rows", path.string());
  return shape;
}

/// The split that is asked: the first of test, valid and train that has rows.
std::string asked_split(const Shape& shape) {
  for (const char* split : {"test", "valid"}) {
    if (std::ranges::find(shape.splits, split) != shape.splits.end()) return split;
  }
  return "train";
}

EvalTask load_choice_rows(EvalTask task, const fs::path& path, const Shape& shape, const RowChoice& rows) {
  task.kind = Kind::kChoice;
  task.section = "choice";
  task.metrics = {"acc", "acc_norm", "acc_bytes"};
  const auto split = asked_split(shape);
  std::vector<data::Question> asked, others;
  auto all = data::read_questions(path, task.name);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < all[i].choices.size(); ++j) {
      if (all[i].choices[j].empty())
        fail(ErrorKind::kBadFormat, "{}: choice {} of {} is empty; a choice needs a text", all[i].where, j, all[i].choices.size());
    }
    if (shape.splits[i] == split) {
      asked.push_back(std::move(all[i]));
    } else if (shape.splits[i] == "train") {
      others.push_back(std::move(all[i]));
    }
  }
  set_questions(task, std::move(asked), std::move(others), rows);
  task.config.update({{"output_type", "multiple_choice"},
                      {"doc_to_text", "{{context}}"},
                      {"doc_to_choice", "{{choices}}"},
                      {"doc_to_target", "{{label}}"},
                      {"target_delimiter", " "}});
  return task;
}

EvalTask load_answer_rows(EvalTask task, const fs::path& path, const Shape& shape, const RowChoice& rows) {
  task.kind = Kind::kAnswer;
  task.section = "answer";
  task.metrics = {"nll", "rouge_l", "exact_match"};
  auto loaded = data::read_task(path, task.name);
  const auto split = asked_split(shape);
  auto asked = split == "test" ? std::move(loaded.test) : split == "valid" ? std::move(loaded.valid) : std::move(loaded.train);
  auto others = split == "train" ? std::vector<data::Example>() : std::move(loaded.train);
  std::string before;
  for (const auto& shot : take_shots(asked, std::move(others), task, rows)) {
    if (!shot.messages.empty()) fail(ErrorKind::kUsage, "{}: a conversation cannot be a few-shot example: ask for none", shot.where);
    before += solved(shot.source, shot.targets[0]) + kBetween;
  }
  task.num_available = std::ssize(asked);
  task.examples = data::sample(std::move(asked), rows.limit, rows.seed, task.name);
  for (auto& example : task.examples) {
    if (!before.empty() && !example.messages.empty())
      fail(ErrorKind::kUsage, "{}: few-shot examples cannot stand before a conversation: ask for none", example.where);
    example.source.insert(0, before);
  }
  task.config.update({{"output_type", "generate_until"}, {"doc_to_text", "{{source}}"}, {"doc_to_target", "{{targets}}"}});
  return task;
}

EvalTask load_text_rows(EvalTask task, const fs::path& path, const Shape& shape, const RowChoice& rows) {
  make_text_task(task);
  const auto split = asked_split(shape);
  io::JsonLinesReader reader(path);
  for (std::size_t i = 0; const auto row = reader.next(); ++i) {
    if (shape.splits[i] != split) continue;
    const auto where = format("{} (task '{}')", reader.where(), task.name);
    task.examples.push_back({.id = io::find_string(*row, "id", where).value_or(reader.where()),
                             .source = "",
                             .targets = {io::require_string(*row, kTextField, where)},
                             .where = where});
  }
  std::set<std::string_view> ids;
  for (const auto& example : task.examples) {
    if (!ids.insert(example.id).second)
      fail(ErrorKind::kBadFormat, "{}: the id '{}' stands twice; give every row an id of its own, or none", example.where, example.id);
  }
  task.num_available = std::ssize(task.examples);
  task.examples = data::sample(std::move(task.examples), rows.limit, rows.seed, task.name);
  task.config.update({{"output_type", "loglikelihood_rolling"}, {"doc_to_text", ""}, {"doc_to_target", "{{text}}"}});
  return task;
}

/// A file that is one text.
EvalTask load_text(const fs::path& path, const RowChoice& rows) {
  EvalTask task{.name = stem_of(path), .group = kOwnGroup, .num_available = 1, .num_fewshot = rows.num_fewshot.value_or(0)};
  make_text_task(task);
  auto text = io::read_text_file(path);
  if (!is_valid_utf8(text)) fail(ErrorKind::kBadFormat, "'{}' is not UTF-8; a text is", path.string());
  const auto name = path.filename().string();
  task.examples.push_back({.id = name, .source = "", .targets = {std::move(text)}, .where = path.string()});
  task.config = {{"dataset_path", "text"},
                 {"dataset_kwargs", {{"data_files", name}, {"sample_by", "document"}}},
                 {"output_type", "loglikelihood_rolling"},
                 {"doc_to_text", ""},
                 {"doc_to_target", "{{text}}"}};
  return task;
}

EvalTask load_rows(const fs::path& path, const RowChoice& rows) {
  const auto shape = shape_of(path);
  const auto name = stem_of(path);
  if (name.empty()) fail(ErrorKind::kUsage, "'{}' has no name before its ending; a task is called by it", path.string());
  EvalTask task{.name = name, .group = kOwnGroup, .num_fewshot = rows.num_fewshot.value_or(0)};
  task.config = {{"dataset_path", "json"}, {"dataset_kwargs", {{"data_files", path.filename().string()}}}};
  if (asked_split(shape) != "train") task.config["test_split"] = asked_split(shape);
  const auto load = shape.kind == Kind::kChoice ? load_choice_rows : shape.kind == Kind::kText ? load_text_rows : load_answer_rows;
  return load(std::move(task), path, shape, rows);
}

/// Warns where the likeliest of two choices is decided by one that the other begins with: a longer text is never likelier.
void warn_of_prefixes(EvalTask& task) {
  std::int64_t count = 0;
  std::string example;
  for (const auto& question : task.questions) {
    std::optional<std::pair<std::string, std::string>> found;
    for (std::size_t i = 0; i < question.continuations.size(); ++i) {
      for (std::size_t j = 0; j < question.continuations.size(); ++j) {
        const bool begins =
            i != j && question.contexts[i] == question.contexts[j] && question.continuations[j].starts_with(question.continuations[i]);
        if (begins && !found) found = {question.choices[i], question.choices[j]};
      }
    }
    if (!found) continue;
    if (count++ == 0) example = format("'{}' and '{}' at {}", found->first, found->second, question.where);
  }
  if (count > 0)
    task.warnings.push_back(
        format("{} of {} rows have a choice that another one begins with, such as {}: the longer one is never the likelier, so acc favours "
               "the shorter",
               count, task.questions.size(), example));
}

}  // namespace

bool is_task_file(const std::string& name) {
  constexpr std::string_view kEndings[] = {".jsonl", ".jsonl.zst", ".yaml", ".yml", ".json", ".txt"};
  return std::ranges::any_of(kEndings, [&](std::string_view ending) { return name.ends_with(ending); });
}

std::vector<std::string> task_file_names(const fs::path& path) {
  check_exists(path);
  std::vector<std::string> names = {stem_of(path)};
  if (holds_rows(path) || is_text(path)) return names;
  const TaskKeys keys(path);
  if (const auto* task = keys.find("task"); task != nullptr && task->is_string() && *task != names[0]) names.push_back(*task);
  return names;
}

EvalTask load_task_file(const fs::path& path, const RowChoice& rows) {
  const auto name = path.string();
  if (!is_task_file(name))
    fail(ErrorKind::kUsage, "'{}' is no task file: its name ends in .jsonl, .jsonl.zst, .yaml, .yml, .json or .txt", name);
  check_exists(path);
  auto task = holds_rows(path) ? load_rows(path, rows) : is_text(path) ? load_text(path, rows) : load_declared_task(path, rows);
  task.config["task"] = task.name;
  task.config["task_file_sha256"] = io::sha256_file(path);
  warn_of_prefixes(task);
  return task;
}

}  // namespace quiver::tasks
