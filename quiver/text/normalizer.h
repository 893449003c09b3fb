// What is done to a text before it is cut: normal forms, lower case, and SentencePiece's spelling of spaces.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace quiver::text {

/// Where a stretch of text stands. Tokenizers of SentencePiece's kind put a space before some stretches.
enum class TextPlace {
  kStart,       ///< at the start of the text
  kAfterToken,  ///< after an added token
  kContinued,   ///< after text that was encoded before, so nothing is put in front
};

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd, kLowercase };
/// Puts `text` in front of each stretch that is not empty.
struct PrependStep {
  std::string text;
};
/// Writes `content` for every `pattern`, from left to right. `pattern` is not empty.
struct ReplaceStep {
  std::string pattern, content;
};
/// Takes white space off the ends.
struct StripStep {
  bool left = false, right = false;
};
using NormalizerStep = std::variant<NormalForm, PrependStep, ReplaceStep, StripStep>;

/// Steps applied in order; none for a tokenizer without a normaliser. Thread-safe.
using Normalizer = std::vector<NormalizerStep>;

/// Reads the member "normalizer" of a tokenizer.json: null, NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace of a literal pattern, Strip,
/// or a Sequence of them. Throws kUnsupported, by name, for another one.
Normalizer parse_normalizer(const nlohmann::json& json, const std::string& origin);

/// `text` must be valid UTF-8; so is the result. Throws kUnsupported if the steps make a text more than kMaxGrowth times as long.
std::string normalize(const Normalizer& normalizer, std::string_view text, TextPlace place = TextPlace::kStart);

inline constexpr std::size_t kMaxGrowth = 64;
/// What a step of a tokenizer.json puts into texts may have this many bytes.
inline constexpr std::size_t kMaxStepBytes = 256;

/// Appends `text` with `content` in place of every `pattern`, from left to right.
void append_replaced(std::string& out, std::string_view text, const ReplaceStep& step);

/// Reads {"pattern": {"String": ...}, "content": ...}, the members of a Replace. Throws kUnsupported for a pattern that is a regular
/// expression or empty, and for content of more than kMaxStepBytes.
ReplaceStep parse_replace(const nlohmann::json& json, const std::string& where);
/// Reads a string of at most kMaxStepBytes. Throws kUnsupported for a longer one.
std::string require_short_string(const nlohmann::json& json, std::string_view key, const std::string& where);

}  // namespace quiver::text
