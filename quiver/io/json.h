// JSON documents and JSON lines, with errors that say where.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace quiver::io {

/// Documents nested deeper than this are refused.
inline constexpr std::int64_t kMaxJsonDepth = 512;

/// What a document may hold.
struct JsonLimits {
  std::int64_t max_depth = kMaxJsonDepth;
  std::int64_t max_values = std::int64_t{1} << 40;        ///< arrays, objects and what is in them; a value takes 16 bytes at least
  std::int64_t max_number_bytes = std::int64_t{1} << 40;  ///< the length of a number that is no integer of 64 bits
};

/// Parses one JSON document in UTF-8. `origin` names the source in messages. Throws kBadFormat with origin, line and
/// column on a syntax error, invalid UTF-8, a duplicate key of one object, trailing bytes, or what exceeds `limits`.
/// A byte-order mark at the start is skipped.
nlohmann::json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {});

/// parse_json over a file. Throws kNotFound, kIo or kBadFormat.
nlohmann::json read_json_file(const std::filesystem::path& path);

/// Compact JSON text in UTF-8, keys sorted; a non-finite number or invalid UTF-8 is a kUsage error naming `origin`
/// (nlohmann would write null for the one, and throw its own exception for the other). `indent` < 0: one line.
std::string dump_json(const nlohmann::json& value, std::string_view origin, int indent = -1);

/// Reads a file of one JSON document per line. A name ending in ".zst" is decompressed on the fly (several frames in
/// a row are fine); "-" is standard input, not decompressed. Blank lines are skipped. Memory: one line, at most
/// kMaxLineBytes. Not thread-safe.
class JsonLinesReader {
 public:
  /// A longer line is refused.
  static constexpr std::int64_t kMaxLineBytes = std::int64_t{256} << 20;

  /// Throws kNotFound or kIo.
  explicit JsonLinesReader(const std::filesystem::path& path);
  /// Reads from memory; `origin` takes the place of the file's name, and a ".zst" at its end means the same.
  static JsonLinesReader from_bytes(std::string bytes, std::string origin);
  ~JsonLinesReader();
  JsonLinesReader(JsonLinesReader&&) noexcept;
  JsonLinesReader& operator=(JsonLinesReader&&) noexcept;

  /// The next document, or nullopt at the end. Throws kBadFormat naming file and line (bad JSON, a truncated or corrupt
  /// zstd stream, a line that is too long), or kIo.
  std::optional<nlohmann::json> next();
  /// Line of the document that next() returned last, from 1; 0 before the first call.
  std::int64_t line_number() const;
  /// "file.jsonl:12", for messages about the document that next() returned last.
  std::string where() const;

 private:
  struct State;
  explicit JsonLinesReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Members of an object. `origin` names the object in messages. require_* throws kBadFormat if the key is missing or
// holds another type; find_* gives nullopt if the key is missing or null, and throws kBadFormat on another type. All
// throw kBadFormat if `object` is no object.
std::string require_string(const nlohmann::json& object, std::string_view key, std::string_view origin);
/// An integer that fits; 3.0 counts as 3 (some writers know only doubles), 3.5 does not.
std::int64_t require_int(const nlohmann::json& object, std::string_view key, std::string_view origin);
double require_double(const nlohmann::json& object, std::string_view key, std::string_view origin);
bool require_bool(const nlohmann::json& object, std::string_view key, std::string_view origin);
const nlohmann::json& require_array(const nlohmann::json& object, std::string_view key, std::string_view origin);
const nlohmann::json& require_object(const nlohmann::json& object, std::string_view key, std::string_view origin);
std::optional<std::string> find_string(const nlohmann::json& object, std::string_view key, std::string_view origin);
std::optional<std::int64_t> find_int(const nlohmann::json& object, std::string_view key, std::string_view origin);
std::optional<double> find_double(const nlohmann::json& object, std::string_view key, std::string_view origin);
std::optional<bool> find_bool(const nlohmann::json& object, std::string_view key, std::string_view origin);

}  // namespace quiver::io
