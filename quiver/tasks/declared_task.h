// A task of a declarative file with its rows, as lm-evaluation-harness 0.4.13 asks it.
#pragma once

#include <filesystem>

#include "quiver/tasks/eval_task.h"
#include "quiver/tasks/pack.h"

namespace quiver::tasks {

/// See load_task_file (task_file.h).
EvalTask load_declared_task(const std::filesystem::path& path, const RowChoice& rows);

}  // namespace quiver::tasks
