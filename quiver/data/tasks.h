// Task datasets on disk: JSON lines, one file a task (data/README.md describes the pack that Quiver carries).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/text/chat_template.h"

namespace quiver::data {

/// One instruction example. The text to complete is `source`; any of `targets` is right, the first is trained on.
struct Example {
  std::string id;
  std::string source;  ///< of a conversation: the texts of the messages before the last
  std::vector<std::string> targets;
  /// A row that is a conversation: all messages, in turn, the last of the assistant, whose text is targets[0]. Else empty.
  std::vector<text::Message> messages = {};
  std::string where = {};  ///< file, line, task and id, for messages: "t.jsonl:3 (task 't', row 'x')"
};

struct Task {
  std::string name;
  std::vector<Example> train, valid, test;
  std::string sha256;  ///< of the file, for provenance and for resuming
};

/// The tasks of a folder (files NAME.jsonl or NAME.jsonl.zst), sorted by name. Throws kNotFound if there is none.
std::vector<std::string> list_tasks(const std::filesystem::path& folder);

/// Names picked from the folder: "all", or a list separated by commas. Throws kNotFound for an unknown task (naming the
/// nearest) and kUsage for one named twice.
std::vector<std::string> select_tasks(const std::filesystem::path& folder, const std::string& names);

/// Reads one task. Rows hold "split" (train, valid or test), "target" or "targets", and "source" or "instruction" and
/// "input", joined by an empty line; or "messages", a conversation that ends with the assistant.
/// Throws kNotFound, or kBadFormat naming file and line; an empty task is kBadFormat.
Task load_task(const std::filesystem::path& folder, const std::string& name);
/// The same of a file by its path.
Task read_task(const std::filesystem::path& path, const std::string& name);
/// Task::sha256 without reading the rows. Throws kNotFound or kIo.
std::string task_sha256(const std::filesystem::path& folder, const std::string& name);

/// The first `count` of `rows` in an order drawn by (seed, task name), all of them if count is 0: the same subset
/// whatever else is asked for, and smaller counts are prefixes of larger ones.
template <typename Row>
std::vector<Row> sample(std::vector<Row> rows, std::int64_t count, std::uint64_t seed, const std::string& name) {
  if (count <= 0 || count >= std::ssize(rows)) return rows;
  RandomStream(seed, "sample/" + name).shuffle(rows);
  rows.resize(static_cast<std::size_t>(count));
  return rows;
}

/// One multiple-choice question as log-likelihood requests: choice i is right if continuation i is the likeliest after context i.
struct Question {
  std::string id;
  std::vector<std::string> choices;        ///< as stored, for acc_norm
  std::vector<std::string> contexts;       ///< one per choice
  std::vector<std::string> continuations;  ///< one per choice
  std::int64_t label = 0;
  std::string where = {};  ///< as Example::where
};

/// Reads one multiple-choice set: modes "choice" and "partial" of data/README.md. Errors as load_task.
std::vector<Question> load_questions(const std::filesystem::path& folder, const std::string& name);
/// The same of a file by its path; the questions stand in the order of its rows.
std::vector<Question> read_questions(const std::filesystem::path& path, const std::string& name);

}  // namespace quiver::data
