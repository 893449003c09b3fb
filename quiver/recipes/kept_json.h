// Partial results in a work folder. A file that was damaged, cut or edited is as good as none: what it held is computed again.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quiver::recipes {

/// What keep_json wrote to `path` under this key; nothing if there is no file, or one of another key or with any byte changed.
std::optional<nlohmann::json> kept_json(const std::filesystem::path& path, const std::string& key);

/// Writes {"key", "value", "sha256"} atomically; the hash is that of the value's text. Throws kIo.
void keep_json(const std::filesystem::path& path, const std::string& key, const nlohmann::json& value);

}  // namespace quiver::recipes
