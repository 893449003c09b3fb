// Cutting a text into the pieces that BPE merges within.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quiver/regex/pattern.h"
#include "quiver/text/normalizer.h"

namespace quiver::text {

/// What becomes of the parts that a pattern matches.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts at the matches of a pattern; with `invert`, at what is between them.
struct SplitStep {
  regex::Pattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};
/// Cuts digits off: each for itself, or runs of them.
struct DigitsStep {
  bool individual = false;
};
/// Puts a space before each piece that starts with none.
struct PrefixSpaceStep {};
/// Which pieces get a `mark` in front.
enum class PrependScheme { kAlways, kFirst, kNever };
/// SentencePiece's spelling of spaces: a `mark` for every space, and one in front of a piece that does not begin with it.
struct MetaspaceStep {
  std::string mark;  ///< one character
  PrependScheme scheme = PrependScheme::kAlways;
  bool cuts = true;  ///< before every mark
};
using PreTokenizerStep = std::variant<SplitStep, DigitsStep, PrefixSpaceStep, MetaspaceStep>;

/// Steps applied in order, each to the pieces of the one before. Immutable, thread-safe.
struct PreTokenizer {
  std::vector<PreTokenizerStep> steps;
  bool is_byte_level = false;  ///< the vocabulary spells the bytes of a piece, not its characters
};

/// The pattern of GPT-2 (Radford et al. 2019), which ByteLevel uses.
std::string_view gpt2_pattern();

/// Reads the members of a Metaspace, of a pre-tokenizer or a decoder, in the spellings of all versions.
MetaspaceStep parse_metaspace(const nlohmann::json& json, const std::string& where);

/// Reads the member "pre_tokenizer" of a tokenizer.json: null, Split, Digits, Metaspace, ByteLevel, or a Sequence of them in which
/// ByteLevel is the last. Throws kUnsupported, by name, for anything else.
PreTokenizer parse_pre_tokenizer(const nlohmann::json& json, const std::string& origin);

/// A step that isolates the matches of a pattern in Oniguruma's syntax.
SplitStep isolate_pattern(std::string_view pattern, const std::string& origin);

/// The pieces of a text, none empty. They point into the text and into `owned`.
struct Pieces {
  std::vector<std::string_view> views;
  std::deque<std::string> owned;  ///< a deque, because its strings stay where they are
};

/// `text` must be valid UTF-8 and outlive the pieces.
void pre_tokenize(const PreTokenizer& pre_tokenizer, std::string_view text, Pieces& out, TextPlace place = TextPlace::kStart);

}  // namespace quiver::text
