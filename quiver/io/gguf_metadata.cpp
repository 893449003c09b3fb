// Typed access to the metadata of a GGUF file.

#include "quiver/base/error.h"
#include "quiver/io/gguf.h"

namespace quiver::io {
namespace {

using Metadata = std::map<std::string, GgufValue, std::less<>>;

/// The alternatives of GgufValue, in words.
std::string_view type_text(const GgufValue& value) {
  constexpr std::string_view kTexts[] = {"an integer",       "a float",       "a boolean",       "a string",
                                         "an integer array", "a float array", "a boolean array", "a string array"};
  return kTexts[value.index()];
}

[[noreturn]] void fail_type(const GgufView& view, std::string_view key, const GgufValue& value, std::string_view expected) {
  fail(ErrorKind::kBadFormat, "{}: metadata '{}' is {}; expected {}", view.origin(), key, type_text(value), expected);
}

[[noreturn]] void fail_absent(const GgufView& view, std::string_view key) {
  fail(ErrorKind::kBadFormat, "{}: the metadata has no key '{}' (it has {} keys; is this a complete model file?)", view.origin(), key,
       view.metadata().size());
}

const GgufValue* find_value(const GgufView& view, std::string_view key) {
  const auto place = view.metadata().find(key);
  return place == view.metadata().end() ? nullptr : &place->second;
}

/// The value if it is a T; nullptr if the key is absent.
template <typename T>
const T* find_as(const GgufView& view, std::string_view key, std::string_view expected) {
  const GgufValue* value = find_value(view, key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) fail_type(view, key, *value, expected);
  return typed;
}

bool is_empty_array(const GgufValue& value) {
  return std::visit(
      [](const auto& held) {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<Held> || std::is_same_v<Held, std::string>) {
          return false;
        } else {
          return held.empty();
        }
      },
      value);
}

template <typename T>
std::optional<std::vector<T>> find_array_as(const GgufView& view, std::string_view key, std::string_view expected) {
  const GgufValue* value = find_value(view, key);
  if (value == nullptr) return std::nullopt;
  // Writers cannot tell the type of an empty list, and choose any.
  if (is_empty_array(*value)) return std::vector<T>{};
  return *find_as<std::vector<T>>(view, key, expected);
}

template <typename T>
T required(const GgufView& view, std::string_view key, std::optional<T> value) {
  if (!value) fail_absent(view, key);
  return *std::move(value);
}

}  // namespace

const std::string* GgufView::find_string(std::string_view key) const { return find_as<std::string>(*this, key, "a string"); }

std::optional<std::int64_t> GgufView::find_int(std::string_view key) const {
  const auto* value = find_as<std::int64_t>(*this, key, "an integer");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<double> GgufView::find_float(std::string_view key) const {
  const GgufValue* value = find_value(*this, key);
  if (value != nullptr && std::holds_alternative<std::int64_t>(*value)) {
    return static_cast<double>(std::get<std::int64_t>(*value));
  }
  const auto* number = find_as<double>(*this, key, "a float");
  return number == nullptr ? std::nullopt : std::optional(*number);
}

std::optional<bool> GgufView::find_bool(std::string_view key) const {
  const auto* value = find_as<bool>(*this, key, "a boolean");
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<std::vector<std::string>> GgufView::find_string_array(std::string_view key) const {
  return find_array_as<std::string>(*this, key, "a string array");
}

std::optional<std::vector<std::int64_t>> GgufView::find_int_array(std::string_view key) const {
  return find_array_as<std::int64_t>(*this, key, "an integer array");
}

const std::string& GgufView::require_string(std::string_view key) const {
  const std::string* value = find_string(key);
  if (value == nullptr) fail_absent(*this, key);
  return *value;
}

std::int64_t GgufView::require_int(std::string_view key) const { return required(*this, key, find_int(key)); }

double GgufView::require_float(std::string_view key) const { return required(*this, key, find_float(key)); }

std::vector<std::string> GgufView::require_string_array(std::string_view key) const { return required(*this, key, find_string_array(key)); }

}  // namespace quiver::io
