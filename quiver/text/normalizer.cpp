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

/// A form by its name in tokenizer.json, with utf8proc's options.
struct FormRow {
  std::string_view name;
  NormalForm form;
  int options = 0;
};
constexpr FormRow kForms[] = {{"NFC", NormalForm::kNfc, UTF8PROC_COMPOSE},
                              {"NFD", NormalForm::kNfd, UTF8PROC_DECOMPOSE},
                              {"NFKC", NormalForm::kNfkc, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                              {"NFKD", NormalForm::kNfkd, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
                              {"Lowercase", NormalForm::kLowercase}};

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
  std::string_view rest = text;  // what is not in `out` yet
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    if (!is_unknown_to_normal_forms(c)) return;
    append_normal_form(out, rest.substr(0, static_cast<std::size_t>(bytes.data() - rest.data())), options);
    out.append(bytes);
    rest = text.substr(static_cast<std::size_t>(bytes.data() + bytes.size() - text.data()));
  });
  append_normal_form(out, rest, options);
  return out;
}

std::string applied(NormalForm form, std::string_view text) {
  if (form == NormalForm::kLowercase) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](std::string_view, char32_t c) { append_lowercase(out, c); });
    return out;
  }
  if (is_ascii(text)) return std::string(text);
  const auto* row = std::ranges::find(kForms, form, &FormRow::form);
  return normal_form(text, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | row->options));
}

std::string applied(const PrependStep& step, std::string_view text) {
  std::string out;
  if (!text.empty()) out.append(step.text).append(text);
  return out;
}

std::string applied(const ReplaceStep& step, std::string_view text) {
  std::string out;
  append_replaced(out, text, step);
  return out;
}

std::string applied(const StripStep& step, std::string_view text) {
  std::size_t begin = 0, end = text.size();
  while (step.left && begin < end) {
    const auto point = code_point_at(text, static_cast<std::int64_t>(begin));
    if (!is_white_space(point.value)) break;
    begin += static_cast<std::size_t>(point.num_bytes);
  }
  while (step.right && begin < end) {
    const auto point = code_point_before(text, static_cast<std::int64_t>(end));
    if (!is_white_space(point.value)) break;
    end -= static_cast<std::size_t>(point.num_bytes);
  }
  return std::string(text.substr(begin, end - begin));
}

void append_steps(const nlohmann::json& node, const std::string& origin, Normalizer& out) {
  if (node.is_null()) return;
  const std::string where = origin + ": normalizer";
  const std::string type = io::require_string(node, "type", where);
  if (type == "Sequence") {
    for (const auto& child : io::require_array(node, "normalizers", where)) {
      append_steps(child, origin, out);
    }
  } else if (const auto* row = std::ranges::find(kForms, type, &FormRow::name); row != std::end(kForms)) {
    out.emplace_back(row->form);
  } else if (type == "Prepend") {
    out.emplace_back(PrependStep{require_short_string(node, "prepend", where)});
  } else if (type == "Replace") {
    out.emplace_back(parse_replace(node, where));
  } else if (type == "Strip") {
    out.emplace_back(StripStep{.left = io::require_bool(node, "strip_left", where), .right = io::require_bool(node, "strip_right", where)});
  } else {
    fail(ErrorKind::kUnsupported,
         "{} '{}' is not implemented; Quiver knows NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip and Sequence", where, type);
  }
}

}  // namespace

Normalizer parse_normalizer(const nlohmann::json& node, const std::string& origin) {
  Normalizer normalizer;
  append_steps(node, origin, normalizer);
  return normalizer;
}

std::string normalize(const Normalizer& normalizer, std::string_view text, TextPlace place) {
  std::string out(text);
  for (const NormalizerStep& step : normalizer) {
    if (place == TextPlace::kContinued && std::holds_alternative<PrependStep>(step)) continue;
    out = std::visit([&](const auto& one) { return applied(one, out); }, step);
    if (out.size() > kMaxGrowth * (text.size() + kMaxStepBytes)) {
      fail(ErrorKind::kUnsupported, "the normalizer makes {} bytes of a text of {}; at most {} times as many are implemented", out.size(),
           text.size(), kMaxGrowth);
    }
  }
  return out;
}

void append_replaced(std::string& out, std::string_view text, const ReplaceStep& step) {
  std::size_t done = 0;
  for (auto found = text.find(step.pattern); found != std::string_view::npos; found = text.find(step.pattern, done)) {
    out.append(text.substr(done, found - done)).append(step.content);
    done = found + step.pattern.size();
  }
  out.append(text.substr(done));
}

ReplaceStep parse_replace(const nlohmann::json& node, const std::string& where) {
  const auto& pattern = io::require_object(node, "pattern", where);
  const auto literal = io::find_string(pattern, "String", where + ": pattern");
  if (!literal || literal->empty()) {
    fail(ErrorKind::kUnsupported, "{}: a Replace of {} is not implemented; Quiver knows patterns that are a 'String'", where,
         literal ? "an empty pattern" : "a regular expression");
  }
  return {.pattern = *literal, .content = require_short_string(node, "content", where)};
}

std::string require_short_string(const nlohmann::json& node, std::string_view key, const std::string& where) {
  auto text = io::require_string(node, key, where);
  if (text.size() > kMaxStepBytes) {
    fail(ErrorKind::kUnsupported, "{}: '{}' has {} bytes; at most {} are implemented", where, key, text.size(), kMaxStepBytes);
  }
  return text;
}

}  // namespace quiver::text
