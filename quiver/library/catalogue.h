// quiver.json: what is in a library.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::library {

/// The version of quiver.json that this code writes, and the only one it reads.
inline constexpr std::int64_t kFormatVersion = 1;

/// Where an adapter comes from.
enum class AdapterKind {
  kPrivate,   ///< trained on one task
  kCluster,   ///< trained on the tasks of a group
  kShared,    ///< trained on all tasks
  kImported,  ///< trained elsewhere
  kPoly,      ///< a skill that tasks mix (Poly)
  kMhr,       ///< a skill that tasks mix head by head (MHR)
};
inline constexpr AdapterKind kAdapterKinds[] = {AdapterKind::kPrivate,  AdapterKind::kCluster, AdapterKind::kShared,
                                                AdapterKind::kImported, AdapterKind::kPoly,    AdapterKind::kMhr};
const char* kind_name(AdapterKind kind);
/// Nothing for a name that is none of theirs.
std::optional<AdapterKind> find_kind(std::string_view name);
/// "private, cluster, ...", for messages.
std::string kind_names();

/// What is said of an adapter when it is added.
struct AdapterInfo {
  AdapterKind kind = AdapterKind::kPrivate;
  std::vector<std::string> tasks = {};                 ///< the tasks it was trained on
  std::string group = {};                              ///< the group of tasks it serves, if any
  std::string created = {};                            ///< ISO 8601; empty: now
  nlohmann::json training = nlohmann::json::object();  ///< a summary of its training: losses, steps, seed, ...
};

/// One adapter of the catalogue.
struct AdapterEntry {
  std::string name;
  AdapterInfo info;
  std::int64_t rank = 0;      ///< the largest of its pairs
  std::string sha256;         ///< of its adapter_model.safetensors
  std::string config_sha256;  ///< of its adapter_config.json; empty in entries of earlier versions
  /// Its files are somebody's own, byte for byte. They may name another base, or none: what counts is the library's.
  bool is_as_given = false;
};

/// The tasks that an adapter serves: those that are said, else one of its own name.
std::vector<std::string> tasks_served(const std::string& name, const std::vector<std::string>& tasks);

/// The base model that all adapters of a library share.
struct Base {
  std::string name;
  std::string fingerprint;  ///< empty if unknown
};

/// Longer names of adapters are refused; they become names of files.
inline constexpr std::int64_t kMaxAdapterNameBytes = 128;

/// Throws kUsage unless `name` can name an adapter: 1 to kMaxAdapterNameBytes of the characters A-Z a-z 0-9 . _ -, not starting with a
/// dot (nor with a dash, which command lines take for an option). No such name leaves its folder.
void check_adapter_name(const std::string& name);

/// All that quiver.json says.
struct Catalogue {
  Base base;
  std::map<std::string, AdapterEntry> adapters;
  std::map<std::string, std::vector<std::string>> groups;  ///< tasks by group
  nlohmann::json groups_provenance;                        ///< how the groups came about; null if unknown
};

/// Throws kBadFormat, or kUnsupported for another format version. `origin` names the file in messages.
Catalogue parse_catalogue(std::string_view text, std::string_view origin);
/// The text of quiver.json, indented, with a final newline. Throws kUsage for numbers that are not finite.
std::string catalogue_text(const Catalogue& catalogue);

}  // namespace quiver::library
