// A folder of an evaluation's results: Quiver's own document, and each method's in the shape of lm-evaluation-harness.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "quiver/recipes/evaluate.h"

namespace quiver::recipes {

/// What tells runs apart: the base, each method with its adapters, each task's rows by content, and the settings that all share.
nlohmann::json describe_run(const methods::BaseModel& base, const EvalSetup& setup);

/// How a folder that holds a run is taken.
enum class FolderUse {
  kNew,     ///< it must not hold a run
  kResume,  ///< it holds this run, perhaps without some of its methods and tasks
  kForce,   ///< what it holds of a run is removed
};

/// Makes the folder, or takes it up; `run` is written to run.json. Finished parts go to `path`/parts (EvalSetup::work).
/// Throws kUsage for a folder with other files, for one with a run where a new one is wanted, and for a run that differs, naming the first
/// difference with both values; kNotFound if there is no folder around it.
void begin_folder(const std::filesystem::path& path, const nlohmann::json& run, FolderUse use);

/// Writes quiver.json, METHOD/results_DATE.json and, with samples, METHOD/samples_TASK_DATE.jsonl. Earlier results in the folder go once
/// the new ones are complete. Throws kIo.
void write_folder(const std::filesystem::path& path, const results::Results& results, const std::vector<tasks::EvalTask>& tasks,
                  bool logs_samples);

}  // namespace quiver::recipes
