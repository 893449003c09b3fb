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

/// A step by its name in tokenizer.json, with utf8proc's options for a normal form.
struct StepRow {
  std::string_view name;
  NormalizerStep step;
  int options = 0;
};
constexpr StepRow kSteps[] = {{"NFC", NormalizerStep::kNfc, UTF8PROC_COMPOSE},
                              {"NFD", NormalizerStep::kNfd, UTF8PROC_DECOMPOSE},
                              {"NFKC", NormalizerStep::kNfkc, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                              {"NFKD", NormalizerStep::kNfkd, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
                              {"Lowercase", NormalizerStep::kLowercase}};

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

std::string apply_step(NormalizerStep step, std::string_view text) {
  if (step == NormalizerStep::kLowercase) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](std::string_view, char32_t c) { append_lowercase(out, c); });
    return out;
  }
  if (is_ascii(text)) return std::string(text);
  const auto* row = std::ranges::find(kSteps, step, &StepRow::step);
  return normal_form(text, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | row->options));
}

void append_steps(const nlohmann::json& json, const std::string& origin, Normalizer& out) {
  if (json.is_null()) return;
  const std::string type = io::require_string(json, "type", origin + ": normalizer");
  if (type == "Sequence") {
    for (const auto& child : io::require_array(json, "normalizers", origin + ": normalizer")) {
      append_steps(child, origin, out);
    }
  } else if (const auto* row = std::ranges::find(kSteps, type, &StepRow::name); row != std::end(kSteps)) {
    out.push_back(row->step);
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
