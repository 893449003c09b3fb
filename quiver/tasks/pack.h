// The tasks of a data pack (data/README.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quiver/tasks/eval_task.h"

namespace quiver::tasks {

/// A group of the pack's tasks, a row for each.
struct Group {
  std::string name;     ///< "mc"
  std::string folder;   ///< below the pack's
  std::string section;  ///< EvalTask::section
  Kind kind;
  std::string file = {};  ///< of all tasks of the group; empty: a file for each task
};

/// upstream, sni, mc, bbh, humaneval, mbpp.
const std::vector<Group>& groups();

/// The names of a group's tasks, without the group's: "piqa", "navigate"; "humaneval" alone. Empty if the pack has none of them.
std::vector<std::string> task_names(const Group& group, const std::filesystem::path& pack);

/// Whose prompts and settings the tasks bbh, humaneval and mbpp have. All others have one form.
enum class Prompts {
  kBenchmark,  ///< those of each benchmark, as lm-evaluation-harness asks it
  kPaper,      ///< those of the paper's table 1 (paper_prompts.h)
};

/// What is chosen of a task's rows, and what stands before them.
struct RowChoice {
  std::int64_t limit = 0;                        ///< rows, drawn by the seed; 0: all
  std::optional<std::int64_t> num_fewshot = {};  ///< nothing: the task's own
  std::uint64_t seed = 42;
  Prompts prompts = Prompts::kBenchmark;
};

/// A task of a group that is to be read.
struct PackTask {
  std::string name;
  RowChoice rows;
};

/// Reads tasks of one group, in this order. Few-shot examples are the same for all rows of a task, so that they are computed once:
///
///   - upstream, sni: rows of the split "train", drawn by the seed;
///   - mc: rows of the set, drawn by the seed, which are then not asked;
///   - bbh: the benchmark's own demonstrations, 3 by default and at most;
///   - mbpp: MBPP/2, 3 and 4 as usual, 3 by default and at most. humaneval has none.
///
/// With the paper's prompts, the examples of bbh are its first rows, 5 by default, which are then not asked; mbpp has none.
///
/// Throws kNotFound and kBadFormat as data::load_task, kUsage for more examples than there are.
std::vector<EvalTask> load_pack_tasks(const Group& group, const std::filesystem::path& pack, const std::vector<PackTask>& tasks);

/// Whether references are labels, so that exact match says something: at least 20 rows, and ten times as many rows as different references.
bool has_labels(const std::vector<data::Example>& examples);

}  // namespace quiver::tasks
