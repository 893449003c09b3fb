#include "quiver/metrics/exact_match.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/metrics/python_text.h"
#include "quiver/text/unicode.h"

namespace quiver::metrics {
namespace {

void check_references(std::span<const std::string> references) {
  if (references.empty()) fail(ErrorKind::kUsage, "exact match needs at least one reference to compare the prediction with");
}

/// NumPy pads a string with U+0000 and cannot tell padding from text.
void remove_padding(std::string& text) {
  while (!text.empty() && text.back() == '\0') text.pop_back();
}

void keep_first_characters(std::string& text, std::size_t count) {
  std::size_t num_characters = 0;
  std::size_t num_bytes = text.size();
  for_each_character(text, [&](std::string_view bytes, char32_t) {
    if (num_characters++ == count) num_bytes = static_cast<std::size_t>(bytes.data() - text.data());
  });
  text.resize(num_bytes);
}

std::size_t count_characters(std::string_view text) { return static_cast<std::size_t>(count_code_points(text)); }

}  // namespace

ExactMatch::ExactMatch(const ExactMatchOptions& options)
    : ignores_case_(options.ignore_case), ignores_punctuation_(options.ignore_punctuation), ignores_numbers_(options.ignore_numbers) {
  for (std::size_t i = 0; i < options.regexes_to_ignore.size(); ++i) {
    patterns_.emplace_back(options.regexes_to_ignore[i], format("exact match: regexes_to_ignore[{}]", i));
  }
}

std::string ExactMatch::without_patterns(std::string_view text, std::string_view name) const {
  check_utf8(text, name);
  std::string rest(text);
  for (std::size_t i = 0; i < patterns_.size(); ++i) {
    if (i > 0) remove_padding(rest);  // in between the texts are NumPy's
    rest = patterns_[i].without_matches(rest);
  }
  return rest;
}

std::string ExactMatch::normalized(const std::string& text, std::size_t max_characters) const {
  std::string out = text;
  remove_padding(out);
  if (ignores_case_) {
    out = text::lowercase(out);
    keep_first_characters(out, max_characters);
  }
  if (ignores_punctuation_) out = without_punctuation(out);
  if (ignores_numbers_) out = without_digits(out);
  remove_padding(out);
  return out;
}

bool ExactMatch::matches_any(std::string_view prediction, std::span<const std::string> references) const {
  check_references(references);
  const auto predicted = without_patterns(prediction, "prediction");
  std::vector<std::string> expected;
  std::size_t longest = 0;
  for (const auto& reference : references) {
    expected.push_back(without_patterns(reference, "reference"));
    longest = std::max(longest, count_characters(expected.back()));
  }
  const auto wanted = normalized(predicted, count_characters(predicted));
  return std::ranges::any_of(expected, [&](const std::string& reference) { return normalized(reference, longest) == wanted; });
}

std::string normalized_answer(std::string_view text) {
  check_utf8(text, "answer");
  const auto plain = without_punctuation(text::lowercase(text));
  std::string out;
  for (const auto word : split_at_space(plain)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

bool has_normalized_answer(std::string_view prediction, std::span<const std::string> references) {
  check_references(references);
  const auto predicted = normalized_answer(prediction);
  return std::ranges::any_of(references, [&](const std::string& reference) { return normalized_answer(reference) == predicted; });
}

}  // namespace quiver::metrics
