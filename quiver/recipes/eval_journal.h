// What an evaluation has computed so far, kept chunk by chunk, so that a killed run goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quiver/io/file.h"
#include "quiver/results/results.h"

namespace quiver::recipes {

/// Sums of routing weights: task -> path of a linear map -> one per adapter.
using RoutingSums = std::map<std::string, std::map<std::string, std::vector<double>>>;

/// A method over the tasks of one section, as far as it is done.
struct EvalPart {
  std::vector<results::Sample> samples;  ///< of each task in the order of its rows
  RoutingSums routing;
  std::vector<std::string> adapters;  ///< that routers choose from
};

/// What a part depends on: the first for all of its samples, the others for those of a task, with the tasks' names in their order.
struct EvalPartKeys {
  std::string shared;
  std::vector<std::pair<std::string, std::string>> tasks;
};

/// The file of one part: a line with the key that all samples share, and a line for each chunk, with the keys of its tasks. Samples of
/// tasks that are not wanted now, or had other rows, stay in the file for the run that wants them. A line holds the SHA-256 of its
/// content. A line that was damaged, cut or edited ends what is taken up: the rest is computed again. Not thread-safe.
class EvalJournal {
 public:
  /// Without a file: nothing is kept.
  explicit EvalJournal(EvalPartKeys keys) : keys_(std::move(keys)) {}
  /// Takes up the file at `path` if its shared key is this one; else begins anew. Throws kIo.
  EvalJournal(const std::filesystem::path& path, EvalPartKeys keys);

  const EvalPart& part() const { return part_; }
  /// Samples that are there of the task: those of its first rows.
  std::size_t num_done(const std::string& task) const;
  /// The part, its samples by the order of the tasks.
  EvalPart take();
  /// Adds a chunk: its samples, and what its rows add to the sums. It is on the disk when this returns. Throws kIo.
  void append(EvalPart chunk);

 private:
  void add(EvalPart chunk);
  nlohmann::json to_json(const EvalPart& chunk) const;
  /// What a line of the file holds of the tasks that are wanted. Its hash was right, so that it is what to_json wrote.
  EvalPart from_json(const nlohmann::json& value, const std::string& origin) const;

  EvalPartKeys keys_;
  EvalPart part_;
  std::optional<io::AppendWriter> writer_;
};

}  // namespace quiver::recipes
