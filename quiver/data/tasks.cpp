#include "quiver/data/tasks.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <ranges>
#include <set>
#include <span>
#include <unordered_map>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path task_file(const fs::path& folder, const std::string& name) {
  for (const char* extension : {".jsonl", ".jsonl.zst"}) {
    if (fs::exists(folder / (name + extension))) return folder / (name + extension);
  }
  const auto names = list_tasks(folder);
  fail(ErrorKind::kNotFound, "no task '{}' in '{}'{}", name, folder.string(), did_you_mean(name, names));
}

std::vector<std::string> string_list(const json& row, const char* key, const std::string& where) {
  std::vector<std::string> values;
  for (const auto& value : io::require_array(row, key, where)) {
    if (!value.is_string()) fail(ErrorKind::kBadFormat, "{}: '{}' holds something other than strings", where, key);
    values.push_back(value.get<std::string>());
  }
  return values;
}

/// A row of {"messages": [...]}.
Example read_conversation(const json& row, const std::string& where) {
  for (const char* key : {"source", "instruction", "input", "target", "targets"}) {
    if (row.contains(key)) fail(ErrorKind::kBadFormat, "{}: the row has both 'messages' and '{}'; expected one of them", where, key);
  }
  Example example{.where = where};
  example.messages = text::parse_messages(row.at("messages"), where);
  text::check_turns(example.messages, where);
  if (example.messages.back().role != "assistant") {
    fail(ErrorKind::kBadFormat, "{}: the conversation ends with a message of role '{}'; expected 'assistant', whose answer is the target",
         where, example.messages.back().role);
  }
  for (const auto& message : std::span(example.messages).first(example.messages.size() - 1)) {
    example.source += (example.source.empty() ? "" : "\n\n") + message.content;
  }
  example.targets = {example.messages.back().content};
  return example;
}

std::string keys_of(const json& row) {
  std::string text;
  for (const auto& [key, value] : row.items()) text += (text.empty() ? "'" : ", '") + key + "'";
  return text.empty() ? "none" : text;
}

/// The text before the target, in one of the shapes that the field's data sets have.
std::string read_source(const json& row, const std::string& where) {
  if (const auto source = io::find_string(row, "source", where)) return *source;
  if (const auto prompt = io::find_string(row, "prompt", where)) return *prompt;
  if (row.contains("instruction")) return io::require_string(row, "instruction", where) + "\n\n" + io::require_string(row, "input", where);
  fail(ErrorKind::kBadFormat,
       "{}: the row has keys {}; expected 'source', 'instruction' and 'input', 'prompt', or 'messages', and a target", where, keys_of(row));
}

Example read_example(const json& row, const std::string& where) {
  if (row.is_object() && row.contains("messages")) return read_conversation(row, where);
  Example example{.source = read_source(row, where), .where = where};
  if (row.contains("targets")) example.targets = string_list(row, "targets", where);
  if (const auto completion = io::find_string(row, "completion", where)) example.targets = {*completion};
  if (const auto target = io::find_string(row, "target", where)) {
    if (example.targets.empty() || example.targets[0] != *target) example.targets.insert(example.targets.begin(), *target);
  }
  if (example.targets.empty()) fail(ErrorKind::kBadFormat, "{}: neither 'target' nor 'completion' nor a non-empty 'targets'", where);
  return example;
}

/// Where each id stands.
using UniqueIds = std::unordered_map<std::string, std::string>;

/// Refuses a second row of one id: results are told apart by it.
void add_id(UniqueIds& ids, const std::string& id, const std::string& where) {
  const auto [first, is_new] = ids.emplace(id, where);
  if (is_new) return;
  fail(ErrorKind::kBadFormat, "{}: the id '{}' stands at {} already; give every row an id of its own, or none", where, id, first->second);
}

/// A row as messages name it. Throws kBadFormat for an id that is no string.
std::string name_row(const json& row, const char* what, const std::string& name, const std::string& line) {
  const auto id = io::find_string(row, "id", line);
  return id ? format("{} ({} '{}', row '{}')", line, what, name, *id) : format("{} ({} '{}')", line, what, name);
}

}  // namespace

std::vector<std::string> list_tasks(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::kNotFound, "task folder '{}' does not exist", folder.string());
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with('.')) continue;  // hidden, such as macOS's ._NAME beside every file that it copies
    if (name.ends_with(".zst")) name.resize(name.size() - 4);
    if (name.ends_with(".jsonl")) names.insert(name.substr(0, name.size() - 6));
  }
  if (names.empty()) fail(ErrorKind::kNotFound, "'{}' holds no .jsonl or .jsonl.zst files", folder.string());
  return {names.begin(), names.end()};
}

std::vector<std::string> select_tasks(const fs::path& folder, const std::string& names) {
  auto known = list_tasks(folder);
  if (names == "all") return known;
  std::vector<std::string> chosen;
  for (const auto part : std::views::split(names, ',')) {
    const std::string name(part.begin(), part.end());
    if (name.empty()) continue;
    if (!std::ranges::binary_search(known, name)) {
      fail(ErrorKind::kNotFound, "no task '{}' in '{}'{}", name, folder.string(), did_you_mean(name, known));
    }
    if (std::ranges::find(chosen, name) != chosen.end()) fail(ErrorKind::kUsage, "task '{}' is named twice", name);
    chosen.push_back(name);
  }
  if (chosen.empty()) fail(ErrorKind::kUsage, "no task is named; give names separated by commas, or all");
  return chosen;
}

std::string task_sha256(const fs::path& folder, const std::string& name) { return io::sha256_file(task_file(folder, name)); }

Task load_task(const fs::path& folder, const std::string& name) { return read_task(task_file(folder, name), name); }

Task read_task(const fs::path& path, const std::string& name) {
  Task task{.name = name, .sha256 = io::sha256_file(path)};
  const std::map<std::string, std::vector<Example>*> parts = {
      {"train", &task.train}, {"valid", &task.valid}, {"validation", &task.valid}, {"test", &task.test}};
  io::JsonLinesReader reader(path);
  UniqueIds ids;
  while (const auto row = reader.next()) {
    const auto line = reader.where();
    const auto where = name_row(*row, "task", name, line);
    const auto split = io::find_string(*row, "split", where).value_or("train");
    const auto part = parts.find(split);
    if (part == parts.end()) fail(ErrorKind::kBadFormat, "{}: split '{}' is not one of train, valid, test", where, split);
    auto& example = part->second->emplace_back(read_example(*row, where));
    example.id = io::find_string(*row, "id", line).value_or(line);
    add_id(ids, example.id, line);
  }
  if (task.train.empty() && task.valid.empty() && task.test.empty()) {
    fail(ErrorKind::kBadFormat, "task '{}' is empty: '{}' holds no rows", name, path.string());
  }
  return task;
}

std::vector<Question> load_questions(const fs::path& folder, const std::string& name) {
  return read_questions(task_file(folder, name), name);
}

std::vector<Question> read_questions(const fs::path& path, const std::string& name) {
  io::JsonLinesReader reader(path);
  std::vector<Question> questions;
  UniqueIds ids;
  while (const auto row = reader.next()) {
    const auto line = reader.where();
    const auto where = name_row(*row, "set", name, line);
    Question question{.id = io::find_string(*row, "id", line).value_or(line), .where = where};
    add_id(ids, question.id, line);
    const auto mode = io::find_string(*row, "mode", where).value_or("choice");
    const auto context = io::require_string(*row, "context", where);
    question.choices = string_list(*row, "choices", where);
    question.label = io::require_int(*row, "label", where);
    const auto count = static_cast<std::int64_t>(question.choices.size());
    if (question.label < 0 || question.label >= count) {
      fail(ErrorKind::kBadFormat, "{}: label {} is not one of the {} choices", where, question.label, count);
    }
    for (const auto& choice : question.choices) {
      if (mode == "choice") {
        question.contexts.push_back(context);
        question.continuations.push_back(" " + choice);
      } else if (mode == "partial") {
        question.contexts.push_back(context + choice);
        question.continuations.push_back(" " + io::require_string(*row, "continuation", where));
      } else {
        fail(ErrorKind::kBadFormat, "{}: mode '{}' is not one of choice, partial", where, mode);
      }
    }
    questions.push_back(std::move(question));
  }
  if (questions.empty()) fail(ErrorKind::kBadFormat, "set '{}' is empty: '{}' holds no rows", name, path.string());
  return questions;
}

}  // namespace quiver::data
