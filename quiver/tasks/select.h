// From the names that a user gives to tasks with their rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quiver/tasks/eval_task.h"
#include "quiver/tasks/pack.h"

namespace quiver::tasks {

/// What is to be evaluated.
struct Selection {
  std::filesystem::path data = "data";           ///< the pack's folder
  std::string names;                             ///< "piqa,sni,bbh/navigate,mine.jsonl"
  std::vector<std::string> limits = {};          ///< "8", "mc=24", "piqa=40": rows of each task; a task's name counts more than its group's
  std::optional<std::int64_t> num_fewshot = {};  ///< nothing: each task's own
  std::uint64_t seed = 42;                       ///< draws rows and examples
  Prompts prompts = Prompts::kBenchmark;         ///< of bbh, humaneval and mbpp
};

/// The tasks, in the order of their names in the list; a group's in the order of its folder or file. A name is
///
///   - a group: upstream, sni, mc, bbh, humaneval, mbpp; "paper": the ten tasks of the paper's table 1;
///   - a task of one group: "piqa"; with its group, where several have it: "mc/piqa";
///   - the path of a task file (task_file.h): "mine.jsonl", "tasks/mine.yaml". A limit calls such a task by the file's name without its
///     ending, or by the name that the file gives it.
///
/// Throws kUsage without a name, for a task named twice, for a task file whose task is called as another one, for a name that several
/// groups have, and for a limit that is no number or fits no task; kNotFound for an unknown name, with the nearest; and as load_pack_tasks
/// and load_task_file.
std::vector<EvalTask> select_tasks(const Selection& selection);

}  // namespace quiver::tasks
