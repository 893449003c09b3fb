// Tasks of a user's own files (docs/formats.md, Task files).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quiver/tasks/eval_task.h"
#include "quiver/tasks/pack.h"

namespace quiver::tasks {

/// Whether a name is the path of a task file: it ends in .jsonl, .jsonl.zst, .yaml, .yml, .json or .txt.
bool is_task_file(const std::string& name);

/// What the task of a file is called before its rows are read: the file's name without its ending and, of a declarative file, its `task`.
std::vector<std::string> task_file_names(const std::filesystem::path& path);

/// Reads a task file; its group is "own".
///
/// JSON lines. Rows with "choices" are a kChoice task, rows with a "text" alone a kText task, rows as data::load_task reads them a kAnswer
/// task. The name is the file's, less its
/// ending. Rows of the split "test" are asked if there are any; else those of "valid" or "validation"; else all. Few-shot examples are
/// drawn by the seed, from the rows of "train"; where there are none, from the rows that are asked, which are then not asked.
///
/// Text: the whole file is one text, as it is.
///
/// YAML, or JSON with the same keys: a task by lm-evaluation-harness' keys (task_config.h), over rows of local JSON lines. Contexts,
/// continuations, labels and references are those of lm-evaluation-harness 0.4.13. The few-shot examples of the sampler "default" are not:
/// it draws others for each row, here they are drawn by the seed, once for all rows.
///
/// Throws kNotFound, and kBadFormat, kUnsupported or kUsage naming file, line and field: as data::load_task and data::load_questions; for
/// rows that mix the shapes; an empty choice; a label that is none of the choices; no targets; an id that stands twice; too few rows
/// for the few-shot examples; and as read_task_config. A choice that begins another one is a warning of the task.
EvalTask load_task_file(const std::filesystem::path& path, const RowChoice& rows);

}  // namespace quiver::tasks
