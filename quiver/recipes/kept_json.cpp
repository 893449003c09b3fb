#include "quiver/recipes/kept_json.h"

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::recipes {

using nlohmann::json;

std::optional<json> kept_json(const std::filesystem::path& path, const std::string& key) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  json document;
  try {
    document = io::read_json_file(path);
    if (io::find_string(document, "key", path.string()) != key || !document.contains("value")) return std::nullopt;
    if (io::require_string(document, "sha256", path.string()) != sha256_hex(io::dump_json(document["value"], path.string()))) {
      return std::nullopt;
    }
  } catch (const Error& damage) {
    if (damage.kind() == ErrorKind::kIo) throw;
    return std::nullopt;
  }
  return std::move(document["value"]);
}

void keep_json(const std::filesystem::path& path, const std::string& key, const json& value) {
  const auto text = io::dump_json(value, path.string());
  io::write_file_atomic(path, io::dump_json({{"key", key}, {"sha256", sha256_hex(text)}, {"value", value}}, path.string()));
}

}  // namespace quiver::recipes
