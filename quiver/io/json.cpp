#include "quiver/io/json.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/io/file.h"
#include "quiver/io/json_internal.h"

namespace quiver::io {
namespace {

using nlohmann::json;

/// The offending byte as "line L, column C", both from 1; columns count bytes.
std::string position_text(std::string_view text, std::size_t offset, std::int64_t first_line) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = first_line + std::count(before.begin(), before.end(), '\n');
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  return format("line {}, column {}", line, column);
}

/// nlohmann's message without its tag and position, with no more than the end of the token it quotes.
std::string reason_of(const std::exception& error) {
  constexpr std::string_view kPosition = "column ", kQuote = "last read: '";
  constexpr std::size_t kLongestQuote = 60;
  std::string reason = error.what();
  if (const auto tag = reason.find("] "); tag != std::string::npos) reason.erase(0, tag + 2);
  if (reason.starts_with("parse error at")) {
    if (const auto column = reason.find(kPosition); column != std::string::npos) {
      const auto colon = reason.find(": ", column);
      if (colon != std::string::npos) reason.erase(0, colon + 2);
    }
  }
  if (const auto quote = reason.find(kQuote); quote != std::string::npos) {
    const std::size_t start = quote + kQuote.size();
    if (reason.size() - start > kLongestQuote) {
      reason.replace(start, reason.size() - start - kLongestQuote, "...");
    }
  }
  constexpr std::size_t kLongest = 200;  // a number that overflows is quoted whole
  if (reason.size() > kLongest) reason = reason.substr(0, kLongest) + "...";
  // The quoted token may hold a broken character; the message must not.
  std::ranges::replace_if(
      reason, [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
  return reason;
}

/// A key for a message: long ones are cut, at a border of characters.
std::string cut_key(std::string_view name) {
  constexpr std::size_t kLongest = 60;
  if (name.size() <= kLongest) return format("'{}'", name);
  name = name.substr(0, kLongest);
  return format("'{}...'", name.substr(0, name.size() - static_cast<std::size_t>(incomplete_tail(name))));
}

/// Builds the document from nlohmann's events, which come without recursion. (Its own builder keeps the last of two
/// equal keys and knows no limit of depth, on which dump() and other recursive walks would run out of stack.)
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  DocumentBuilder(std::string_view text, std::string_view origin, std::int64_t first_line, const JsonLimits& limits)
      : text_(text), origin_(origin), first_line_(first_line), limits_(limits) {}

  json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(std::int64_t value) override { return put(value); }
  bool number_unsigned(std::uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string& digits) override {
    if (static_cast<std::int64_t>(digits.size()) > limits_.max_number_bytes) {
      fail(ErrorKind::kBadFormat, "{}: not usable JSON: a number of {} characters; at most {} are read", origin_, digits.size(),
           limits_.max_number_bytes);
    }
    return put(value);
  }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(json::binary_t& value) override { return put(std::move(value)); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    const auto [place, is_new] = open_.back()->get_ref<json::object_t&>().try_emplace(name, nullptr);
    if (!is_new) {
      fail(ErrorKind::kBadFormat, "{}: not JSON: the key {} occurs twice in one object; keep one of the two", origin_, cut_key(name));
    }
    member_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // `position` counts the bytes read, the offending one included.
    fail(ErrorKind::kBadFormat, "{}: not JSON at {}: {}", origin_, position_text(text_, position > 0 ? position - 1 : 0, first_line_),
         reason_of(error));
  }

 private:
  json* place(json&& value) {
    if (++num_values_ > limits_.max_values) {
      fail(ErrorKind::kBadFormat, "{}: not usable JSON: more than {} values", origin_, limits_.max_values);
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      auto& items = parent.get_ref<json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool put(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json&& value) {
    if (static_cast<std::int64_t>(open_.size()) >= limits_.max_depth) {
      fail(ErrorKind::kBadFormat, "{}: not usable JSON: arrays and objects are nested {} deep; at most {} is read", origin_,
           open_.size() + 1, limits_.max_depth);
    }
    open_.push_back(place(std::move(value)));  // stable: a parent does not grow while its child is open
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  std::string_view origin_;
  std::int64_t first_line_;
  JsonLimits limits_;
  std::int64_t num_values_ = 0;
  json root_;
  std::vector<json*> open_;
  json* member_ = nullptr;
};

[[noreturn]] void fail_member(std::string_view origin, std::string_view key, std::string_view expected, const json& found) {
  fail(ErrorKind::kBadFormat, "{}: '{}' is {} ({}); expected {}", origin, key, found.type_name(), excerpt(found), expected);
}

/// nullptr if the key is missing; throws if `object` is no object.
const json* member(const json& object, std::string_view key, std::string_view origin) {
  if (!object.is_object()) {
    fail(ErrorKind::kBadFormat, "{}: expected an object with the key '{}', found {}", origin, key, object.type_name());
  }
  const auto place = object.find(key);
  return place == object.end() ? nullptr : &*place;
}

const json& required(const json& object, std::string_view key, std::string_view origin) {
  const json* value = member(object, key, origin);
  if (value == nullptr) {
    std::string present;
    for (const auto& item : object.items()) {
      if (present.size() > 100) {
        present += ", ...";
        break;
      }
      present += format("{}'{}'", present.empty() ? "" : ", ", item.key());
    }
    fail(ErrorKind::kBadFormat, "{}: the key '{}' is missing; found {}", origin, key, present.empty() ? "no keys" : present);
  }
  return *value;
}

const json* optional_member(const json& object, std::string_view key, std::string_view origin) {
  const json* value = member(object, key, origin);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string as_string(const json& value, std::string_view key, std::string_view origin) {
  if (!value.is_string()) fail_member(origin, key, "a string", value);
  return value.get<std::string>();
}

std::int64_t as_int(const json& value, std::string_view key, std::string_view origin) {
  if (value.is_number_unsigned()) {
    if (value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)) return value.get<std::int64_t>();
  } else if (value.is_number_integer()) {
    return value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const double number = value.get<double>();
    // Beyond 2^53 a double no longer says which integer was meant.
    if (std::trunc(number) == number && std::abs(number) <= 0x1p53) return static_cast<std::int64_t>(number);
  }
  fail_member(origin, key, "an integer of 64 bits", value);
}

double as_double(const json& value, std::string_view key, std::string_view origin) {
  if (!value.is_number()) fail_member(origin, key, "a number", value);
  return value.get<double>();
}

bool as_bool(const json& value, std::string_view key, std::string_view origin) {
  if (!value.is_boolean()) fail_member(origin, key, "true or false", value);
  return value.get<bool>();
}

/// Throws on a number that JSON cannot hold. Recursive, like dump() itself.
void check_finite(const json& value, std::string_view origin) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    fail(ErrorKind::kUsage, "cannot write {}: {} is not a JSON number", origin, value.get<double>());
  }
  if (value.is_structured()) {
    for (const json& item : value) check_finite(item, origin);
  }
}

}  // namespace

json parse_json_at(std::string_view text, std::string_view origin, std::int64_t first_line, const JsonLimits& limits) {
  // nlohmann takes a zero byte for the end of the text, and would overlook whatever follows it.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
    fail(ErrorKind::kBadFormat, "{}: not JSON at {}: a zero byte (is this a text file?)", origin, position_text(text, zero, first_line));
  }
  DocumentBuilder builder(text, origin, first_line, limits);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits) { return parse_json_at(text, origin, 1, limits); }

json read_json_file(const std::filesystem::path& path) { return parse_json(read_text_file(path), path.native()); }

std::string dump_json(const json& value, std::string_view origin, int indent) {
  check_finite(value, origin);
  try {
    return value.dump(indent);
  } catch (const json::exception& error) {
    fail(ErrorKind::kUsage, "cannot write {} as JSON: {}", origin, reason_of(error));
  }
}

std::string excerpt(const json& value) {
  constexpr std::size_t kLongest = 60;
  // Replaces broken characters: an excerpt never fails.
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > kLongest) text.replace(kLongest, std::string::npos, "...");
  return text;
}

std::string require_string(const json& object, std::string_view key, std::string_view origin) {
  return as_string(required(object, key, origin), key, origin);
}

std::int64_t require_int(const json& object, std::string_view key, std::string_view origin) {
  return as_int(required(object, key, origin), key, origin);
}

double require_double(const json& object, std::string_view key, std::string_view origin) {
  return as_double(required(object, key, origin), key, origin);
}

bool require_bool(const json& object, std::string_view key, std::string_view origin) {
  return as_bool(required(object, key, origin), key, origin);
}

const json& require_array(const json& object, std::string_view key, std::string_view origin) {
  const json& value = required(object, key, origin);
  if (!value.is_array()) fail_member(origin, key, "an array", value);
  return value;
}

const json& require_object(const json& object, std::string_view key, std::string_view origin) {
  const json& value = required(object, key, origin);
  if (!value.is_object()) fail_member(origin, key, "an object", value);
  return value;
}

std::optional<std::string> find_string(const json& object, std::string_view key, std::string_view origin) {
  const json* value = optional_member(object, key, origin);
  return value == nullptr ? std::nullopt : std::optional(as_string(*value, key, origin));
}

std::optional<std::int64_t> find_int(const json& object, std::string_view key, std::string_view origin) {
  const json* value = optional_member(object, key, origin);
  return value == nullptr ? std::nullopt : std::optional(as_int(*value, key, origin));
}

std::optional<double> find_double(const json& object, std::string_view key, std::string_view origin) {
  const json* value = optional_member(object, key, origin);
  return value == nullptr ? std::nullopt : std::optional(as_double(*value, key, origin));
}

std::optional<bool> find_bool(const json& object, std::string_view key, std::string_view origin) {
  const json* value = optional_member(object, key, origin);
  return value == nullptr ? std::nullopt : std::optional(as_bool(*value, key, origin));
}

}  // namespace quiver::io
