// A BPE tokenizer, over bytes or as SentencePiece has it, that gives the same ids as Hugging Face's `tokenizers`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/text/decoder.h"

namespace quiver::io {
class GgufView;
}

namespace quiver::text {

struct EncodeOptions {
  /// Applies the template of the post-processor (for example a BOS token in front), as Python's
  /// `encode(text, add_special_tokens=True)` does. Off by default: prompts say themselves what they need.
  bool add_special_tokens = false;
  /// What stands before the text, which is encoded alone. Tokenizers of SentencePiece's kind put a space before a text, but not before
  /// one that goes on.
  TextPlace place = TextPlace::kStart;
};

struct TokenizerParts;

/// Text to token ids and back: normalise, cut out the added tokens, pre-tokenise, and merge the bytes or characters of every piece
/// in the order of the merges' ranks (Sennrich et al. 2016; on bytes as in GPT-2, Radford et al. 2019; on characters, with bytes for
/// those that have no token, as in SentencePiece, Kudo and Richardson 2018).
///
/// Invalid UTF-8 in the input of `encode` is read as Python's `errors="replace"` reads it: U+FFFD for every maximal
/// ill-formed part. `decode` does the same with the bytes of the tokens.
///
/// A value type: copies share the vocabulary. Immutable; every method may be called from any thread at once.
class Tokenizer {
 public:
  /// Reads the object of a tokenizer.json. `origin` names the source in messages. Throws kBadFormat for what is not a
  /// tokenizer, and kUnsupported, by name, for a component or option that Quiver does not implement.
  static Tokenizer from_tokenizer_json(const nlohmann::json& json, const std::string& origin);

  /// Reads the tokenizer.ggml.* metadata of a GGUF file: byte-level BPE ("gpt2"), SentencePiece with scores ("llama") or with merges
  /// ("gemma4"). Throws kUnsupported for another tokenizer.ggml.model, and for a tokenizer.ggml.pre that Quiver does not know. A file
  /// without tokenizer.ggml.pre is cut as by "default", with a warning; one of a GPT-NeoX as by "gpt-2".
  static Tokenizer from_gguf(const io::GgufView& gguf);

  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

  /// The ids of `text`. The spellings of added tokens ("<|im_end|>") in the text become these tokens. Throws kMismatch for an id that the
  /// model has no row for (with_model_rows).
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  /// The text of `ids`. Ids outside the vocabulary are left out, as are special tokens if `skip_special`.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  /// 1 + the greatest id.
  std::int64_t vocab_size() const;
  /// The id of a token by its spelling in the vocabulary (bytes as GPT-2's printable characters, "Ġthe").
  std::optional<std::int32_t> token_id(std::string_view token) const;
  /// The spelling of a token, or nothing if the vocabulary has no such id.
  std::optional<std::string> token(std::int32_t id) const;
  /// The bytes of a token's text where it is not the first: often part of a character. Empty if the vocabulary has no such id.
  std::string token_bytes(std::int32_t id) const;
  /// True for an added token marked special.
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> bos_id() const;
  std::optional<std::int32_t> eos_id() const;
  std::optional<std::int32_t> pad_id() const;
  /// Every id that ends a text: the eos token first, then the further ones of the model's configuration.
  std::span<const std::int32_t> eos_ids() const;

  /// SHA-256 of all that encode and decode depend on: the description of the tokenizer, whichever file it is from, and the special ids.
  std::string sha256() const;
  /// What was assumed where its file says nothing, a line each: for the user to see.
  std::span<const std::string> warnings() const;

  /// The same tokenizer with other special ids (load_tokenizer takes them from the files beside tokenizer.json).
  /// `eos` may be empty. Throws kMismatch if an id is outside the vocabulary.
  Tokenizer with_special_ids(std::optional<std::int32_t> bos, std::vector<std::int32_t> eos, std::optional<std::int32_t> pad) const;
  /// The same tokenizer for a model whose embedding has `num_rows` rows, which may be fewer than there are tokens. `encode` then refuses a
  /// text with a token beyond them. Throws kMismatch if a special id is beyond them.
  Tokenizer with_model_rows(std::int64_t num_rows) const;

 private:
  friend class StreamDecoder;
  std::shared_ptr<const TokenizerParts> parts_;
};

/// Tokens with larger ids are refused. A vocabulary is stored by id, so one absurd id must not ask for gigabytes.
inline constexpr std::int32_t kMaxTokenId = (1 << 24) - 1;

/// A tokenizer in a model folder without tokenizer.json: a GGUF file of metadata alone.
inline constexpr const char* kGgufTokenizerFile = "tokenizer.gguf";

/// Reads a tokenizer from a Hugging Face folder (tokenizer.json; special ids from tokenizer_config.json,
/// generation_config.json and config.json, where they are), from a tokenizer.json, or from a .gguf file.
/// Throws kNotFound if there is none.
Tokenizer load_tokenizer(const std::filesystem::path& path);

/// Turns ids into text one by one, holding back what later ids may change: bytes of an unfinished character, a run of byte tokens.
///
///   push(a) + push(b) + ... + finish() == decode({a, b, ...})
///
/// Holds a reference to nothing: the tokenizer is a shared value. Not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = false) : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  /// The text that is complete now; valid UTF-8, often empty.
  std::string push(std::int32_t id);
  /// The same, at the end of `text`.
  void append(std::int32_t id, std::string& text);
  /// What is left at the end: nothing, or U+FFFD for an unfinished character. The decoder is then as new.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  TokenJoiner joiner_;
};

}  // namespace quiver::text
