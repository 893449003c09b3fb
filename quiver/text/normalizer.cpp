#include "quiver/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void append_normal_form(std::string& out, std::string_view text, utf8proc_option_t options) {
  if (text.empty()) return;
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  if (size < 0) {
    fail(ErrorKind::kInternal, "utf8proc refused {} bytes of valid UTF-8: {}", text.size(), utf8proc_errmsg(size));
  }
  out.append(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
}

/// The normal form of Unicode 9, whatever utf8proc's version: a character assigned later stands for itself, has
/// combining class 0 and composes with nothing, so the text can be cut around it.
std::string normal_form(std::string_view text, utf8proc_option_t options) {
  std::string out;
  out.reserve(text.size());
  const auto size = static_cast<std::int64_t>(text.size());
  const auto cut = [&](std::int64_t from, std::int64_t to) {
    return text.substr(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
  };
  std::int64_t start = 0;
  for (std::int64_t i = 0; i < size;) {
    const CodePoint point = code_point_at(text, i);
    if (is_unknown_to_normal_forms(point.value)) {
      append_normal_form(out, cut(start, i), options);
      out.append(cut(i, i + point.num_bytes));
      start = i + point.num_bytes;
    }
    i += point.num_bytes;
  }
  append_normal_form(out, cut(start, size), options);
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const auto size = static_cast<std::int64_t>(text.size());
  for (std::int64_t i = 0; i < size;) {
    const CodePoint point = code_point_at(text, i);
    append_lowercase(out, point.value);
    i += point.num_bytes;
  }
  return out;
}

std::string apply_step(NormalizerStep step, std::string_view text) {
  constexpr int kBase = UTF8PROC_STABLE;
  const auto form = [&](int options) { return normal_form(text, static_cast<utf8proc_option_t>(kBase | options)); };
  if (step == NormalizerStep::kLowercase) return lowercase(text);
  if (is_ascii(text)) return std::string(text);
  switch (step) {
    case NormalizerStep::kNfc: return form(UTF8PROC_COMPOSE);
    case NormalizerStep::kNfd: return form(UTF8PROC_DECOMPOSE);
    case NormalizerStep::kNfkc: return form(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case NormalizerStep::kNfkd: return form(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case NormalizerStep::kLowercase: break;
  }
  fail(ErrorKind::kInternal, "no such normaliser step: {}", step);
}

void append_steps(const nlohmann::json& json, const std::string& origin, Normalizer& out) {
  if (json.is_null()) return;
  const std::string type = io::require_string(json, "type", origin + ": normalizer");
  if (type == "Sequence") {
    for (const auto& child : io::require_array(json, "normalizers", origin + ": normalizer")) {
      append_steps(child, origin, out);
    }
  } else if (type == "NFC") {
    out.push_back(NormalizerStep::kNfc);
  } else if (type == "NFD") {
    out.push_back(NormalizerStep::kNfd);
  } else if (type == "NFKC") {
    out.push_back(NormalizerStep::kNfkc);
  } else if (type == "NFKD") {
    out.push_back(NormalizerStep::kNfkd);
  } else if (type == "Lowercase") {
    out.push_back(NormalizerStep::kLowercase);
  } else {
    fail(ErrorKind::kUnsupported, "{}: normalizer '{}' is not implemented; Quiver knows NFC, NFD, NFKC, NFKD, Lowercase and Sequence",
         origin, type);
  }
}

}  // namespace

Normalizer parse_normalizer(const nlohmann::json& json, const std::string& origin) {
  Normalizer normalizer;
  append_steps(json, origin, normalizer);
  return normalizer;
}

std::string normalize(const Normalizer& normalizer, std::string_view text) {
  std::string out(text);
  for (const NormalizerStep step : normalizer) out = apply_step(step, out);
  return out;
}

}  // namespace quiver::text
