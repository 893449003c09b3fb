// YAML documents as JSON values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace quiver::io {

/// What a document may hold.
struct YamlLimits {
  std::int64_t max_bytes = std::int64_t{1} << 20;
  std::int64_t max_depth = 64;        ///< lists and mappings inside each other
  std::int64_t max_values = 100'000;  ///< values, those of aliases once more; a long text or key counts one for every 64 bytes
};

/// A document, and where its values stand. Pointers are JSON's: "/metric_list/0/metric".
struct YamlDocument {
  nlohmann::json value;
  std::map<std::string, std::int64_t> lines;      ///< from 1; a mapping's member stands where its key does; nothing inside of aliases
  std::map<std::string, std::string> local_tags;  ///< of texts with a tag such as "!function"

  /// The line of what `pointer` names, or of the nearest value around it that has one.
  std::int64_t line_of(std::string pointer) const;
};

/// Parses one document in UTF-8 as PyYAML's safe loader does: libyaml's syntax, and YAML 1.1's plain scalars. So `yes` and `on` are
/// booleans, 010 is eight, 1:30 is ninety, and 1e5 is a text. No text at all is null. `origin` names the source in messages.
///
/// Throws kBadFormat with origin and line for a fault of syntax, for what exceeds `limits`, and for a key that stands twice, of which
/// PyYAML takes the last. Throws kUnsupported for what JSON cannot hold or nobody needs here: dates, integers beyond 64 bits, keys that are
/// no texts, merges ("<<"), an alias inside its own anchor, tags but the usual ones, and local tags on lists and mappings.
YamlDocument parse_yaml(std::string_view text, std::string_view origin, const YamlLimits& limits = {});

/// parse_yaml over a file. Throws kNotFound, kIo too.
YamlDocument read_yaml_file(const std::filesystem::path& path);

}  // namespace quiver::io
