// From tokens back to text, as the decoders of `tokenizers` do.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quiver/text/normalizer.h"

namespace quiver::text {

/// Takes up to `start` and `stop` of a character off the ends.
struct StripEdit {
  std::string character;
  std::int64_t start = 0, stop = 0;
};
/// Writes a space for every mark; in the first token, nothing if `drops_first`.
struct MetaspaceEdit {
  std::string mark;
  bool drops_first = false;
};
using TokenEdit = std::variant<ReplaceStep, StripEdit, MetaspaceEdit>;

/// What becomes of a list of tokens, in the order of the members. Immutable, thread-safe.
struct Decoder {
  std::vector<TokenEdit> edits;        ///< of each token
  bool has_byte_fallback = false;      ///< a run of tokens "<0x41>" is the text of its bytes, or U+FFFD for each if that is not UTF-8
  std::vector<TokenEdit> later_edits;  ///< of each token after that
  bool is_byte_level = false;          ///< tokens spell bytes, which are UTF-8 when they are joined
  std::vector<StripEdit> strips;       ///< of the joined text
};

/// Reads the member "decoder" of a tokenizer.json: Replace, ByteFallback, Strip, Metaspace, ByteLevel, Fuse, or a Sequence. After Fuse or
/// ByteLevel a Strip may follow. Throws kUnsupported, by name, for anything else.
Decoder parse_decoder(const nlohmann::json& json, const std::string& origin);

/// What a token comes to before tokens are joined: text, or the bytes that it spells if is_byte_level.
struct TokenText {
  std::string text;
  bool is_byte = false;  ///< `text` is the byte of a token "<0x41>"
};
/// A TokenText that lies elsewhere.
struct TokenTextView {
  std::string_view text;
  bool is_byte = false;
};
/// `is_first`: no token comes before it.
TokenText text_of_token(const Decoder& decoder, std::string_view spelling, bool is_first);

/// Joins tokens one by one; text comes out as soon as no later token can change it. Not thread-safe.
class TokenJoiner {
 public:
  /// Appends to `out` what is certain once the token with this spelling has come. `later` is what the token comes to where it is not the
  /// first.
  void push(const Decoder& decoder, std::string_view spelling, TokenTextView later, std::string& out);
  /// Appends the rest. The joiner is then as new.
  void finish(const Decoder& decoder, std::string& out);

 private:
  void flush_bytes(const Decoder& decoder, std::string& out);
  void join(const Decoder& decoder, std::string_view text, std::string& out);
  void strip(const Decoder& decoder, std::string text, std::string& out);

  struct StripState {
    bool is_inside = false;      ///< text has come that the start's strip stops at
    std::int64_t num_taken = 0;  ///< characters taken off the start
    std::string held;            ///< characters that are taken off if they are the end
  };
  bool has_token_ = false;  ///< a token has come
  bool has_text_ = false;   ///< text has come to later_edits
  std::string byte_run_;    ///< bytes of tokens "<0x41>"
  std::string incomplete_;  ///< bytes that later ones may make a character
  std::vector<StripState> strips_;
};

}  // namespace quiver::text
