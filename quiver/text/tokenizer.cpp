#include "quiver/text/tokenizer.h"

#include <algorithm>
#include <limits>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/text/tokenizer_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

void check_valid_utf8(const TokenizerSource& source) {
  for (const auto& [token, id] : source.bpe.vocabulary) {
    if (!is_valid_utf8(token)) fail(ErrorKind::kBadFormat, "{}: token {} is not valid UTF-8", source.origin, id);
    if (id < 0 || id > kMaxTokenId) {
      fail(ErrorKind::kBadFormat, "{}: token '{}' has the id {}; ids are 0 to {}", source.origin, token, id, kMaxTokenId);
    }
  }
  for (const AddedToken& token : source.added_tokens) {
    if (!is_valid_utf8(token.content)) {
      fail(ErrorKind::kBadFormat, "{}: added token {} is not valid UTF-8", source.origin, token.id);
    }
  }
}

/// Checks that each added token has the id that `tokenizers` gives it whatever the file says: that of the vocabulary,
/// or the next one after all tokens.
void check_added_ids(const TokenizerSource& source, const Bpe& bpe) {
  const auto num_tokens = static_cast<std::int64_t>(bpe.vocabulary().size());
  std::int64_t next = num_tokens;
  TokenMap seen;
  for (const AddedToken& token : source.added_tokens) {
    const auto in_vocabulary = bpe.vocabulary().find(token.content);
    const auto before = seen.find(token.content);
    std::int64_t expected = next;
    if (before != seen.end()) {
      expected = before->second;
    } else if (in_vocabulary != bpe.vocabulary().end()) {
      expected = in_vocabulary->second;
    }
    if (token.id != expected || expected > kMaxTokenId) {
      fail(ErrorKind::kBadFormat,
           "{}: added token '{}' has the id {}, but its place in the vocabulary of {} tokens is {}; number added tokens on from the "
           "vocabulary, without gaps",
           source.origin, token.content, token.id, num_tokens, expected);
    }
    seen.emplace(token.content, token.id);
    next = std::max<std::int64_t>(next, expected + 1);
  }
}

/// Collects a TokenTable.
struct TokenTableParts {
  std::vector<TokenTable::Kind> kinds;
  std::vector<std::string> spellings, texts;

  void set(const Decoder& decoder, std::int32_t id, const std::string& token) {
    const auto index = static_cast<std::size_t>(id);
    if (kinds.size() <= index) {
      kinds.resize(index + 1);
      spellings.resize(index + 1);
      texts.resize(index + 1);
    }
    auto [text, is_byte] = text_of_token(decoder, token, /*is_first=*/false);
    kinds[index] = is_byte ? TokenTable::Kind::kByte : TokenTable::Kind::kText;
    spellings[index] = token;
    texts[index] = std::move(text);
  }
  TokenTable table() const { return {kinds, StringTable(spellings), StringTable(texts)}; }
};

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  // Special tokens come first, as in `tokenizers`: of two tokens that normalise to the same text, the first counts.
  std::vector<AddedToken> out;
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens) {
      if (token.special == special && token.normalized == normalized) out.push_back(token);
    }
  }
  return out;
}

void check_special_id(const TokenizerCore& core, std::string_view role, std::optional<std::int32_t> id) {
  const auto size = static_cast<std::int64_t>(core.tokens.size());
  if (!id || (*id >= 0 && *id < size)) return;
  fail(ErrorKind::kMismatch, "{}: the {} token has the id {}, outside the vocabulary of {} ids", core.origin, role, *id, size);
}

Tokenizer with_checked_ids(std::shared_ptr<const TokenizerCore> core, SpecialIds ids, std::int64_t num_rows = kMaxTokenId + 1) {
  check_special_id(*core, "bos", ids.bos);
  check_special_id(*core, "pad", ids.pad);
  for (const std::int32_t id : ids.eos) check_special_id(*core, "eos", id);
  return Tokenizer(std::make_shared<const TokenizerParts>(TokenizerParts{std::move(core), std::move(ids), num_rows}));
}

void encode_text(const TokenizerCore& core, std::string_view text, TextPlace place, std::vector<std::int32_t>& out) {
  Pieces pieces;
  pre_tokenize(core.pre_tokenizer, text, pieces, place);
  for (const std::string_view piece : pieces.views) core.bpe.encode(piece, out);
}

void encode_segments(const TokenizerCore& core, std::string_view text, TextPlace start, std::vector<std::int32_t>& out) {
  std::vector<Segment> segments;
  std::vector<Segment> inner;
  core.raw_tokens.split(text, segments);
  for (const Segment& segment : segments) {
    if (segment.id) {
      out.push_back(*segment.id);
      continue;
    }
    const auto place = segment.text.data() == text.data() ? start : TextPlace::kAfterToken;
    std::string storage;
    std::string_view normalized = segment.text;
    if (!core.normalizer.empty()) normalized = storage = normalize(core.normalizer, segment.text, place);
    inner.clear();
    core.normalized_tokens.split(normalized, inner);
    for (const Segment& part : inner) {
      if (part.id) {
        out.push_back(*part.id);
      } else {
        encode_text(core, part.text, part.text.data() == normalized.data() ? place : TextPlace::kAfterToken, out);
      }
    }
  }
}

/// Throws for the first id, from `begin` on, that the model has no row for.
void check_rows(const TokenizerParts& parts, std::span<const std::int32_t> ids) {
  for (const std::int32_t id : ids) {
    if (id < parts.num_rows) continue;
    const auto spelling = parts.core->tokens.spellings[static_cast<std::size_t>(id)];
    fail(ErrorKind::kMismatch,
         "the text has the token '{}' of id {}, but the model has rows for ids below {} alone; leave it out of the text", spelling, id,
         parts.num_rows);
  }
}

}  // namespace

Tokenizer make_tokenizer(TokenizerSource source) {
  if (source.sha256.empty()) fail(ErrorKind::kInternal, "{}: a tokenizer without the hash of its description", source.origin);
  check_valid_utf8(source);
  Bpe bpe(source.bpe, source.origin);
  check_added_ids(source, bpe);
  auto core =
      std::make_shared<TokenizerCore>(TokenizerCore{.origin = source.origin,
                                                    .sha256 = source.sha256,
                                                    .bpe = std::move(bpe),
                                                    .normalizer = source.normalizer,
                                                    .pre_tokenizer = std::move(source.pre_tokenizer),
                                                    .decoder = std::move(source.decoder),
                                                    .raw_tokens = TokenFinder(select(source.added_tokens, false), {}),
                                                    .normalized_tokens = TokenFinder(select(source.added_tokens, true), source.normalizer),
                                                    .post_processor = std::move(source.post_processor),
                                                    .added_ids = {},
                                                    .tokens = {},
                                                    .special = {},
                                                    .warnings = std::move(source.warnings)});
  TokenTableParts tokens;
  for (const auto& [token, id] : core->bpe.vocabulary()) tokens.set(core->decoder, id, token);
  for (const AddedToken& token : source.added_tokens) {
    // `tokenizers` knows a token that is looked for in normalised text by its normalised spelling.
    tokens.set(core->decoder, token.id, token.normalized ? normalize(core->normalizer, token.content) : token.content);
    core->added_ids.emplace(token.content, token.id);
    if (token.special) core->special.insert(token.id);
  }
  core->tokens = tokens.table();
  for (const TemplateItem& item : core->post_processor) {
    for (const std::int32_t id : item.ids) check_special_id(*core, "post-processor's", id);
  }
  return with_checked_ids(std::move(core), {source.bos_id, std::move(source.eos_ids), source.pad_id});
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const TokenizerCore& core = *parts_->core;
  std::string storage;
  if (!is_valid_utf8(text)) text = storage = replace_invalid_utf8(text);
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  if (!options.add_special_tokens) {
    encode_segments(core, text, options.place, ids);
    check_rows(*parts_, ids);
    return ids;
  }
  for (const TemplateItem& item : core.post_processor) {
    if (item.is_text) {
      encode_segments(core, text, options.place, ids);
    } else {
      ids.insert(ids.end(), item.ids.begin(), item.ids.end());
    }
  }
  check_rows(*parts_, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  StreamDecoder decoder(*this, skip_special);
  std::string text;
  for (const std::int32_t id : ids) decoder.append(id, text);
  return text + decoder.finish();
}

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(parts_->core->tokens.size()); }

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  for (const TokenMap* map : {&parts_->core->added_ids, &parts_->core->bpe.vocabulary()}) {
    if (const auto found = map->find(token); found != map->end()) return found->second;
  }
  return std::nullopt;
}

std::optional<std::string> Tokenizer::token(std::int32_t id) const {
  const auto& tokens = parts_->core->tokens;
  if (id < 0 || !tokens.has(static_cast<std::size_t>(id))) return std::nullopt;
  return std::string(tokens.spellings[static_cast<std::size_t>(id)]);
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  return id < 0 || id >= vocab_size() ? std::string() : std::string(parts_->core->tokens.texts[static_cast<std::size_t>(id)]);
}

bool Tokenizer::is_special(std::int32_t id) const { return parts_->core->special.contains(id); }

std::optional<std::int32_t> Tokenizer::bos_id() const { return parts_->special_ids.bos; }

std::optional<std::int32_t> Tokenizer::eos_id() const {
  const auto& eos = parts_->special_ids.eos;
  return eos.empty() ? std::nullopt : std::optional(eos.front());
}

std::optional<std::int32_t> Tokenizer::pad_id() const { return parts_->special_ids.pad; }

std::span<const std::int32_t> Tokenizer::eos_ids() const { return parts_->special_ids.eos; }

std::span<const std::string> Tokenizer::warnings() const { return parts_->core->warnings; }

Tokenizer Tokenizer::with_special_ids(std::optional<std::int32_t> bos, std::vector<std::int32_t> eos,
                                      std::optional<std::int32_t> pad) const {
  return with_checked_ids(parts_->core, {bos, std::move(eos), pad}, parts_->num_rows);
}

Tokenizer Tokenizer::with_model_rows(std::int64_t num_rows) const {
  const auto& [bos, eos, pad] = parts_->special_ids;
  const auto check = [&](std::string_view role, std::optional<std::int32_t> id) {
    if (!id || *id < num_rows) return;
    fail(ErrorKind::kMismatch, "{}: the {} token '{}' has the id {}, but the model has rows for ids below {} alone", parts_->core->origin,
         role, token(*id).value_or(""), *id, num_rows);
  };
  check("bos", bos);
  check("pad", pad);
  for (const std::int32_t id : eos) check("eos", id);
  return with_checked_ids(parts_->core, parts_->special_ids, num_rows);
}

std::string Tokenizer::sha256() const {
  const auto& ids = parts_->special_ids;
  Sha256 hash;
  hash.update(format("{} {} {}", parts_->core->sha256, ids.bos.value_or(-1), ids.pad.value_or(-1)));
  for (const std::int32_t id : ids.eos) hash.update(format(" {}", id));
  return hash.hex();
}

void StreamDecoder::append(std::int32_t id, std::string& text) {
  const TokenizerCore& core = *tokenizer_.parts_->core;
  const auto index = static_cast<std::size_t>(id);
  if (id < 0 || !core.tokens.has(index)) return;
  if (skip_special_ && core.special.contains(id)) return;
  const bool is_byte = core.tokens.kinds[index] == TokenTable::Kind::kByte;
  joiner_.push(core.decoder, core.tokens.spellings[index], {core.tokens.texts[index], is_byte}, text);
}

std::string StreamDecoder::push(std::int32_t id) {
  std::string text;
  append(id, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  joiner_.finish(tokenizer_.parts_->core->decoder, text);
  return text;
}

}  // namespace quiver::text
