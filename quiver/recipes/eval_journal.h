// What an evaluation has computed so far, kept chunk by chunk, so that a killed run goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/io/file.h"
#include "quiver/results/results.h"

namespace quiver::recipes {

/// Sums of routing weights: task -> path of a linear map -> one per adapter.
using RoutingSums = std::map<std::string, std::map<std::string, std::vector<double>>>;

/// A method over the tasks of one section, as far as it is done.
struct EvalPart {
  std::vector<results::Sample> samples;  ///< in the order of tasks and rows
  RoutingSums routing;
  std::vector<std::string> adapters;  ///< that routers choose from
};

/// The file of one part: a line with the key of all that the part depends on, and a line for each chunk. A line holds the SHA-256 of its
/// content. A line that was damaged, cut or edited ends what is taken up: the rest is computed again. Not thread-safe.
class EvalJournal {
 public:
  /// Without a file: nothing is kept.
  EvalJournal() = default;
  /// Takes up the file at `path` if its key is this one; else begins anew. Throws kIo.
  EvalJournal(const std::filesystem::path& path, const std::string& key);

  const EvalPart& part() const { return part_; }
  EvalPart take() { return std::move(part_); }
  /// Adds a chunk: its samples, and what its rows add to the sums. It is on the disk when this returns. Throws kIo.
  void append(EvalPart chunk);

 private:
  void add(EvalPart chunk);

  EvalPart part_;
  std::optional<io::AppendWriter> writer_;
};

}  // namespace quiver::recipes
