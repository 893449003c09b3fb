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

void apply_step(const PreTokenizerStep& step, std::string_view piece, std::vector<Part>& parts) {
  parts.clear();
  if (const auto* split = std::get_if<SplitStep>(&step)) {
    cut_at_matches(*split, piece, parts);
    join_parts(split->behavior, parts);
  } else {
    cut_at_digits(piece, parts);
    const bool individual = std::get<DigitsStep>(step).individual;
    join_parts(individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, parts);
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

SplitStep parse_split(const nlohmann::json& json, const std::string& origin) {
  const nlohmann::json& pattern = io::require_object(json, "pattern", origin);
  const auto literal = io::find_string(pattern, "String", origin + ": pattern");
  const auto expression = io::find_string(pattern, "Regex", origin + ": pattern");
  if (literal.has_value() == expression.has_value()) {
    fail(ErrorKind::kBadFormat, "{}: a Split needs a pattern with either 'String' or 'Regex'", origin);
  }
  return {.pattern = regex::Pattern(literal ? regex::literal_pattern(*literal) : translate_pattern(*expression, origin), origin),
          .behavior = parse_behavior(io::require_string(json, "behavior", origin), origin),
          .invert = io::find_bool(json, "invert", origin).value_or(false)};
}

/// `saw_bytes`: a ByteLevel has been read; its bytes are nothing that a further step could split.
void append_steps(const nlohmann::json& json, const std::string& origin, PreTokenizer& out, bool& saw_bytes) {
  const std::string where = origin + ": pre_tokenizer";
  const std::string type = io::require_string(json, "type", where);
  if (type == "Sequence") {
    for (const auto& child : io::require_array(json, "pretokenizers", where)) {
      append_steps(child, origin, out, saw_bytes);
    }
    return;
  }
  if (saw_bytes) fail(ErrorKind::kUnsupported, "{}: '{}' after ByteLevel is not implemented", where, type);
  if (type == "Split") {
    out.steps.emplace_back(parse_split(json, where));
  } else if (type == "Digits") {
    out.steps.emplace_back(DigitsStep{io::find_bool(json, "individual_digits", where).value_or(false)});
  } else if (type == "ByteLevel") {
    saw_bytes = true;
    if (io::require_bool(json, "add_prefix_space", where)) out.steps.emplace_back(PrefixSpaceStep{});
    if (io::find_bool(json, "use_regex", where).value_or(true)) {
      out.steps.emplace_back(isolate_pattern(gpt2_pattern(), where));
    }
  } else {
    fail(ErrorKind::kUnsupported, "{} '{}' is not implemented; Quiver knows ByteLevel, Split, Digits and Sequence", where, type);
  }
}

}  // namespace

std::string_view gpt2_pattern() { return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"; }

SplitStep isolate_pattern(std::string_view pattern, const std::string& origin) {
  return {.pattern = regex::Pattern(translate_pattern(pattern, origin), origin)};
}

PreTokenizer parse_pre_tokenizer(const nlohmann::json& json, const std::string& origin) {
  PreTokenizer out;
  bool saw_bytes = false;
  if (!json.is_null()) append_steps(json, origin, out, saw_bytes);
  if (!saw_bytes) {
    fail(ErrorKind::kUnsupported, "{}: a pre_tokenizer without ByteLevel is not implemented; Quiver reads byte-level BPE tokenizers only",
         origin);
  }
  return out;
}

void pre_tokenize(const PreTokenizer& pre_tokenizer, std::string_view text, Pieces& out) {
  out.views.clear();
  out.owned.clear();
  if (text.empty()) return;
  out.views.push_back(text);
  std::vector<std::string_view> next;
  std::vector<Part> parts;
  for (const PreTokenizerStep& step : pre_tokenizer.steps) {
    if (std::holds_alternative<PrefixSpaceStep>(step)) {
      for (std::string_view& piece : out.views) {
        if (!piece.starts_with(' ')) piece = out.owned.emplace_back(" " + std::string(piece));
      }
      continue;
    }
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
