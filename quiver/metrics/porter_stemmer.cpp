#include "quiver/metrics/porter_stemmer.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace quiver::metrics {
namespace {

struct Rule {
  std::string_view suffix;
  std::string_view replacement;
};

// Words on which the rules go wrong, with their stems.
constexpr Rule kIrregular[] = {{"sky", "sky"},       {"skies", "sky"},       {"dying", "die"},       {"lying", "lie"},
                               {"tying", "tie"},     {"news", "news"},       {"inning", "inning"},   {"innings", "inning"},
                               {"outing", "outing"}, {"outings", "outing"},  {"canning", "canning"}, {"cannings", "canning"},
                               {"howe", "howe"},     {"proceed", "proceed"}, {"exceed", "exceed"},   {"succeed", "succeed"}};

// Within a step the first suffix that fits decides, so that a longer one stands before its own ending.
constexpr Rule kStep2[] = {
    {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},   {"izer", "ize"},  {"bli", "ble"},    {"alli", "al"},
    {"entli", "ent"},   {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"}, {"ator", "ate"},   {"alism", "al"},
    {"iveness", "ive"}, {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"}, {"biliti", "ble"}, {"fulli", "ful"}};
constexpr Rule kStep3[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}};
constexpr std::string_view kStep4[] = {"al",  "ance", "ence", "er",  "ic",  "able", "ible", "ant", "ement", "ment",
                                       "ent", "ion",  "ou",   "ism", "ate", "iti",  "ous",  "ive", "ize"};

bool is_plain_vowel(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

/// For each letter, is it a consonant: not a, e, i, o, u, and not a y that follows a consonant.
std::vector<bool> consonants(std::string_view word) {
  std::vector<bool> flags(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    flags[i] = word[i] == 'y' ? (i == 0 || !flags[i - 1]) : !is_plain_vowel(word[i]);
  }
  return flags;
}

/// m of the form [C](VC)^m[V].
std::int64_t measure(std::string_view stem) {
  const auto flags = consonants(stem);
  std::int64_t m = 0;
  for (std::size_t i = 1; i < flags.size(); ++i) m += (!flags[i - 1] && flags[i]) ? 1 : 0;
  return m;
}

/// *v*
bool has_vowel(std::string_view stem) { return std::ranges::count(consonants(stem), false) > 0; }

/// *d
bool ends_double_consonant(std::string_view word) {
  const auto n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && consonants(word)[n - 1];
}

/// *o
bool ends_cvc(std::string_view word) {
  const auto n = word.size();
  if (n < 2) return false;
  const auto flags = consonants(word);
  if (n == 2) return !flags[0] && flags[1];
  const char last = word[n - 1];
  return flags[n - 3] && !flags[n - 2] && flags[n - 1] && last != 'w' && last != 'x' && last != 'y';
}

/// What stands before `suffix`, if the word ends with it.
std::optional<std::string_view> before(std::string_view word, std::string_view suffix) {
  if (!word.ends_with(suffix)) return std::nullopt;
  return word.substr(0, word.size() - suffix.size());
}

std::string joined(std::string_view stem, std::string_view ending) {
  std::string word(stem);
  word += ending;
  return word;
}

/// The first rule whose suffix fits, applied if m(stem) > 0.
std::string apply_rules(const std::string& word, std::span<const Rule> rules) {
  for (const auto& rule : rules) {
    if (const auto stem = before(word, rule.suffix)) {
      return measure(*stem) > 0 ? joined(*stem, rule.replacement) : word;
    }
  }
  return word;
}

std::string step1a(const std::string& word) {
  if (const auto stem = before(word, "sses")) return joined(*stem, "ss");
  if (const auto stem = before(word, "ies")) return joined(*stem, word.size() == 4 ? "ie" : "i");
  if (word.ends_with("ss")) return word;
  if (const auto stem = before(word, "s")) return std::string(*stem);
  return word;
}

std::string step1b(const std::string& word) {
  if (const auto stem = before(word, "ied")) return joined(*stem, word.size() == 4 ? "ie" : "i");
  if (const auto stem = before(word, "eed")) return measure(*stem) > 0 ? joined(*stem, "ee") : word;
  auto stem = before(word, "ed");
  if (!stem) stem = before(word, "ing");
  if (!stem || !has_vowel(*stem)) return word;

  if (stem->ends_with("at") || stem->ends_with("bl") || stem->ends_with("iz")) return joined(*stem, "e");
  if (ends_double_consonant(*stem)) {
    const char last = stem->back();
    const bool keep = last == 'l' || last == 's' || last == 'z';
    return std::string(keep ? *stem : stem->substr(0, stem->size() - 1));
  }
  if (measure(*stem) == 1 && ends_cvc(*stem)) return joined(*stem, "e");
  return std::string(*stem);
}

std::string step1c(const std::string& word) {
  const auto stem = before(word, "y");
  if (!stem || stem->size() < 2 || !consonants(*stem).back()) return word;
  return joined(*stem, "i");
}

std::string step2(std::string word) {
  // "rationalli" -> "rational", to which the rules below apply in turn.
  if (const auto stem = before(word, "alli"); stem && measure(*stem) > 0) word = joined(*stem, "al");
  // "logi" loses its i alone: the l counts for the measure.
  if (word.ends_with("logi")) {
    const auto stem = std::string_view(word).substr(0, word.size() - 3);
    return measure(stem) > 0 ? joined(stem, "og") : word;
  }
  return apply_rules(word, kStep2);
}

std::string step4(const std::string& word) {
  for (const auto suffix : kStep4) {
    if (const auto stem = before(word, suffix)) {
      if (measure(*stem) <= 1) return word;
      if (suffix == "ion" && !stem->ends_with('s') && !stem->ends_with('t')) return word;
      return std::string(*stem);
    }
  }
  return word;
}

std::string step5(const std::string& word) {
  std::string result = word;
  if (const auto stem = before(word, "e")) {
    const auto m = measure(*stem);
    if (m > 1 || (m == 1 && !ends_cvc(*stem))) result = std::string(*stem);
  }
  if (result.ends_with("ll") && measure(std::string_view(result).substr(0, result.size() - 1)) > 1) {
    result.pop_back();
  }
  return result;
}

}  // namespace

std::string porter_stem(std::string_view word) {
  if (word.size() <= 2) return std::string(word);
  for (const auto& [form, stem] : kIrregular) {
    if (word == form) return std::string(stem);
  }
  auto stem = step1c(step1b(step1a(std::string(word))));
  stem = apply_rules(step2(std::move(stem)), kStep3);
  return step5(step4(stem));
}

}  // namespace quiver::metrics
