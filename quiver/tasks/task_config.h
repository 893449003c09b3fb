// A declarative task file, read and checked: what is asked of which rows.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/tasks/doc_field.h"
#include "quiver/tasks/eval_task.h"

namespace quiver::tasks {

/// How a row becomes text.
struct DocFormat {
  DocField text, target;
  std::optional<DocField> choice;
  std::string target_delimiter = " ";
  std::string fewshot_delimiter = "\n\n";
};

/// A task by lm-evaluation-harness' keys of the same names.
struct TaskConfig {
  EvalTask task;                                                         ///< name, kind, metrics, answers; without rows
  std::string origin;                                                    ///< the file, for messages
  std::map<std::string, std::vector<std::filesystem::path>> data_files;  ///< of each split
  std::optional<std::string> test_split, validation_split, training_split;
  std::optional<std::string> fewshot_split;  ///< fewshot_config's, else fewshot_split
  std::optional<DocField> description;
  DocFormat format;
  DocFormat shots;                      ///< of few-shot examples: `format`, less what fewshot_config says
  std::vector<nlohmann::json> samples;  ///< fewshot_config's own examples
  bool takes_first = false;             ///< few-shot examples are the first rows, not drawn
  std::int64_t num_fewshot = 0;
};

/// Reads a task file. Throws as TaskKeys, and kBadFormat or kUnsupported, naming file, line and key, for a value that cannot be honoured.
TaskConfig read_task_config(const std::filesystem::path& path);

}  // namespace quiver::tasks
