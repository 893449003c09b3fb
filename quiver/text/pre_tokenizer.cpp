#include "quiver/text/pre_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/text/oniguruma.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

/// A part of a piece: a delimiter, or what is between two of them. Parts cover the piece.
struct Part {
  std::int64_t begin;
  std::int64_t end;
  bool is_delimiter;
};

void cut_at_matches(const SplitStep& step, std::string_view piece, std::vector<Part>& out) {
  thread_local std::vector<regex::Match> matches;
  matches.clear();
  step.pattern.find_all(piece, matches);
  std::int64_t end = 0;
  for (const regex::Match& match : matches) {
    if (match.begin > end) out.push_back({end, match.begin, step.invert});
    out.push_back({match.begin, match.end, !step.invert});
    end = match.end;
  }
  const auto size = static_cast<std::int64_t>(piece.size());
  if (end < size) out.push_back({end, size, step.invert});
}

void cut_at_digits(std::string_view piece, std::vector<Part>& out) {
  const auto size = static_cast<std::int64_t>(piece.size());
  std::int64_t start = 0;
  for_each_character(piece, [&](std::string_view bytes, char32_t c) {
    if (!is_numeric(c)) return;
    const std::int64_t begin = bytes.data() - piece.data();
    if (begin > start) out.push_back({start, begin, false});
    start = begin + std::ssize(bytes);
    out.push_back({begin, start, true});
  });
  if (start < size) out.push_back({start, size, false});
}

/// Joins parts in place as the behaviour says; what is left are the pieces.
void join_parts(SplitBehavior behavior, std::vector<Part>& parts) {
  if (behavior == SplitBehavior::kIsolated) return;
  if (behavior == SplitBehavior::kRemoved) {
    std::erase_if(parts, [](const Part& part) { return part.is_delimiter; });
    return;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::ranges::reverse(parts);
  std::vector<Part> joined;
  bool after_delimiter = false;
  for (const Part& part : parts) {
    // A delimiter joins the text beside it, but of two delimiters in a row the second stands alone.
    const bool joins =
        behavior == SplitBehavior::kContiguous ? part.is_delimiter == after_delimiter : part.is_delimiter && !after_delimiter;
    if (joins && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, part.begin);
      joined.back().end = std::max(joined.back().end, part.end);
    } else {
      joined.push_back(part);
    }
    after_delimiter = part.is_delimiter;
  }
  if (backwards) std::ranges::reverse(joined);
  parts = std::move(joined);
}

/// Cuts before every mark.
void cut_at_marks(std::string_view mark, std::string_view piece, std::vector<Part>& out) {
  std::size_t begin = 0;
  while (begin < piece.size()) {
    const auto end = std::min(piece.find(mark, begin + 1), piece.size());
    out.push_back({static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end), false});
    begin = end;
  }
}

void apply_step(const PreTokenizerStep& step, std::string_view piece, std::vector<Part>& parts) {
  parts.clear();
  if (const auto* split = std::get_if<SplitStep>(&step)) {
    cut_at_matches(*split, piece, parts);
    join_parts(split->behavior, parts);
  } else if (const auto* digits = std::get_if<DigitsStep>(&step)) {
    cut_at_digits(piece, parts);
    join_parts(digits->individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, parts);
  } else if (const auto* marks = std::get_if<MetaspaceStep>(&step); marks != nullptr && marks->cuts) {
    cut_at_marks(marks->mark, piece, parts);
  } else {
    parts.push_back({0, std::ssize(piece), false});
  }
}

/// What a step puts in front of pieces and in place of spaces, before it cuts.
void rewrite_pieces(const PreTokenizerStep& step, TextPlace place, Pieces& pieces) {
  const auto* marks = std::get_if<MetaspaceStep>(&step);
  if (marks == nullptr && !std::holds_alternative<PrefixSpaceStep>(step)) return;
  const auto scheme = marks == nullptr ? PrependScheme::kAlways : marks->scheme;
  for (std::string_view& piece : pieces.views) {
    const bool is_first = &piece == &pieces.views.front();
    const bool is_wanted = scheme == PrependScheme::kAlways ? !is_first || place != TextPlace::kContinued
                                                            : scheme == PrependScheme::kFirst && is_first && place == TextPlace::kStart;
    if (marks == nullptr) {
      if (is_wanted && !piece.starts_with(' ')) piece = pieces.owned.emplace_back(" " + std::string(piece));
      continue;
    }
    const bool is_marked = piece.starts_with(' ') || piece.starts_with(marks->mark);
    std::string text = is_wanted && !is_marked ? marks->mark : "";
    append_replaced(text, piece, {.pattern = " ", .content = marks->mark});
    piece = pieces.owned.emplace_back(std::move(text));
  }
}

SplitBehavior parse_behavior(const std::string& name, const std::string& origin) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fail(ErrorKind::kUnsupported,
       "{}: split behaviour '{}' is not implemented; Quiver knows Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous",
       origin, name);
}

SplitStep parse_split(const nlohmann::json& node, const std::string& origin) {
  const nlohmann::json& pattern = io::require_object(node, "pattern", origin);
  const auto literal = io::find_string(pattern, "String", origin + ": pattern");
  const auto expression = io::find_string(pattern, "Regex", origin + ": pattern");
  if (literal.has_value() == expression.has_value()) {
    fail(ErrorKind::kBadFormat, "{}: a Split needs a pattern with either 'String' or 'Regex'", origin);
  }
  return {.pattern = regex::Pattern(literal ? regex::literal_pattern(*literal) : translate_pattern(*expression, origin), origin),
          .behavior = parse_behavior(io::require_string(node, "behavior", origin), origin),
          .invert = io::find_bool(node, "invert", origin).value_or(false)};
}

void append_steps(const nlohmann::json& node, const std::string& origin, PreTokenizer& out) {
  const std::string where = origin + ": pre_tokenizer";
  const std::string type = io::require_string(node, "type", where);
  if (type == "Sequence") {
    for (const auto& child : io::require_array(node, "pretokenizers", where)) append_steps(child, origin, out);
    return;
  }
  // The bytes of a ByteLevel are nothing that a further step could split.
  if (out.is_byte_level) fail(ErrorKind::kUnsupported, "{}: '{}' after ByteLevel is not implemented", where, type);
  if (type == "Split") {
    out.steps.emplace_back(parse_split(node, where));
  } else if (type == "Digits") {
    out.steps.emplace_back(DigitsStep{io::find_bool(node, "individual_digits", where).value_or(false)});
  } else if (type == "Metaspace") {
    out.steps.emplace_back(parse_metaspace(node, where));
  } else if (type == "ByteLevel") {
    out.is_byte_level = true;
    if (io::require_bool(node, "add_prefix_space", where)) out.steps.emplace_back(PrefixSpaceStep{});
    if (io::find_bool(node, "use_regex", where).value_or(true)) {
      out.steps.emplace_back(isolate_pattern(gpt2_pattern(), where));
    }
  } else {
    fail(ErrorKind::kUnsupported, "{} '{}' is not implemented; Quiver knows ByteLevel, Metaspace, Split, Digits and Sequence", where, type);
  }
}

}  // namespace

std::string_view gpt2_pattern() { return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"; }

SplitStep isolate_pattern(std::string_view pattern, const std::string& origin) {
  return {.pattern = regex::Pattern(translate_pattern(pattern, origin), origin)};
}

MetaspaceStep parse_metaspace(const nlohmann::json& node, const std::string& where) {
  MetaspaceStep step{.mark = io::require_string(node, "replacement", where)};
  if (!is_valid_utf8(step.mark) || count_code_points(step.mark) != 1) {
    fail(ErrorKind::kBadFormat, "{}: the replacement '{}' of a Metaspace is not one character", where, step.mark);
  }
  // Files older than prepend_scheme say whether a mark is put in front at all.
  const bool has_prefix = io::find_bool(node, "add_prefix_space", where).value_or(true);
  const auto scheme = io::find_string(node, "prepend_scheme", where).value_or(has_prefix ? "always" : "never");
  if (!has_prefix && scheme != "never") {
    fail(ErrorKind::kBadFormat, "{}: add_prefix_space is false, but prepend_scheme '{}'", where, scheme);
  }
  if (scheme == "first") {
    step.scheme = PrependScheme::kFirst;
  } else if (scheme == "never") {
    step.scheme = PrependScheme::kNever;
  } else if (scheme != "always") {
    fail(ErrorKind::kUnsupported, "{}: prepend_scheme '{}' is not implemented; Quiver knows always, first and never", where, scheme);
  }
  step.cuts = io::find_bool(node, "split", where).value_or(true);
  return step;
}

PreTokenizer parse_pre_tokenizer(const nlohmann::json& node, const std::string& origin) {
  PreTokenizer out;
  if (!node.is_null()) append_steps(node, origin, out);
  return out;
}

void pre_tokenize(const PreTokenizer& pre_tokenizer, std::string_view text, Pieces& out, TextPlace place) {
  out.views.clear();
  out.owned.clear();
  if (text.empty()) return;
  out.views.push_back(text);
  std::vector<std::string_view> next;
  std::vector<Part> parts;
  for (const PreTokenizerStep& step : pre_tokenizer.steps) {
    rewrite_pieces(step, place, out);
    next.clear();
    for (const std::string_view piece : out.views) {
      apply_step(step, piece, parts);
      for (const Part& part : parts) {
        if (part.end == part.begin) continue;
        next.push_back(piece.substr(static_cast<std::size_t>(part.begin), static_cast<std::size_t>(part.end - part.begin)));
      }
    }
    out.views.swap(next);
  }
}

}  // namespace quiver::text
