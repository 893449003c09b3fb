// The keys of a declarative task file, and where each stands.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/io/yaml.h"

namespace quiver::tasks {

/// A YAML or JSON file with lm-evaluation-harness' keys, and the files that it includes. Its own keys count more than included ones.
/// Every key is one that Quiver reads, or that changes no result.
class TaskKeys {
 public:
  /// Throws kNotFound, and as io::read_yaml_file. Throws kBadFormat, naming file and line, for a file that is no mapping and for includes
  /// in a circle; kUnsupported for a Python function and for a key that Quiver does not honour; kUsage for an unknown key, with the
  /// nearest.
  explicit TaskKeys(const std::filesystem::path& path);

  /// The value; nullptr if the key is missing or null.
  const nlohmann::json* find(std::string_view key) const;
  /// All keys with their values.
  const nlohmann::json& values() const { return values_; }
  /// "mine.yaml:12", for a value by its JSON pointer, such as "/metric_list/0/metric"; without the line where the file is JSON.
  std::string where(const std::string& pointer) const;
  /// The folder of the file that the value stands in.
  std::filesystem::path folder_of(const std::string& key) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Source {
    std::filesystem::path path;
    io::YamlDocument document;
    bool has_lines = true;
  };
  void include(const std::filesystem::path& path, std::vector<std::filesystem::path>& open);
  void check_keys() const;
  void check_functions() const;
  const Source& source_of(const std::string& pointer) const;

  std::filesystem::path path_;
  std::vector<Source> sources_;
  std::map<std::string, std::size_t> source_of_key_;
  nlohmann::json values_ = nlohmann::json::object();
};

}  // namespace quiver::tasks
