// What a Tokenizer is made of. Only the files of this folder that make or use a Tokenizer include this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "quiver/text/added_tokens.h"
#include "quiver/text/bpe.h"
#include "quiver/text/decoder.h"
#include "quiver/text/normalizer.h"
#include "quiver/text/pre_tokenizer.h"
#include "quiver/text/string_table.h"
#include "quiver/text/tokenizer.h"

namespace quiver::text {

/// An element of a post-processor's template: fixed ids, or the text.
struct TemplateItem {
  bool is_text = false;
  std::vector<std::int32_t> ids;
};

/// The description of a tokenizer, from whichever file.
struct TokenizerSource {
  std::string origin;
  std::string sha256;  ///< of the whole description
  BpeSource bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder{.is_byte_level = true};
  std::vector<AddedToken> added_tokens;  ///< in the order of their ids
  std::vector<TemplateItem> post_processor{{.is_text = true, .ids = {}}};
  std::optional<std::int32_t> bos_id;
  std::vector<std::int32_t> eos_ids;
  std::optional<std::int32_t> pad_id;
  std::vector<std::string> warnings;
};

struct SpecialIds {
  std::optional<std::int32_t> bos;
  std::vector<std::int32_t> eos;
  std::optional<std::int32_t> pad;
};

/// The tokens by id.
struct TokenTable {
  enum class Kind : std::uint8_t {
    kNone,  ///< no token has the id
    kText,
    kByte,  ///< TokenText::is_byte
  };
  std::vector<Kind> kinds;
  StringTable spellings;
  StringTable texts;  ///< what text_of_token gives where the token is not the first

  std::size_t size() const { return kinds.size(); }
  bool has(std::size_t id) const { return id < size() && kinds[id] != Kind::kNone; }
};

/// Shared by all copies of a Tokenizer, whatever their special ids.
struct TokenizerCore {
  std::string origin, sha256;
  Bpe bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
  TokenFinder raw_tokens;         ///< added tokens that are looked for in the text as it is
  TokenFinder normalized_tokens;  ///< and those looked for in the normalised text
  std::vector<TemplateItem> post_processor;
  TokenMap added_ids;
  TokenTable tokens;  ///< by id
  std::unordered_set<std::int32_t> special;
  std::vector<std::string> warnings;
};

struct TokenizerParts {
  std::shared_ptr<const TokenizerCore> core;
  SpecialIds special_ids;
  std::int64_t num_rows = kMaxTokenId + 1;  ///< of the model; greater ids are refused
};

/// Validates and assembles. Throws kBadFormat or kMismatch.
Tokenizer make_tokenizer(TokenizerSource source);

}  // namespace quiver::text
