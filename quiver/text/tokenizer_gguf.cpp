// The tokenizer in the metadata of a GGUF file: tokens and their types with merges or scores; the pre-tokenizer by name only.
#include <algorithm>
#include <cmath>
#include <variant>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/gguf.h"
#include "quiver/text/gguf_pre_names.h"
#include "quiver/text/tokenizer_parts.h"

namespace quiver::text {
namespace {

/// ggml's token types.
enum GgufTokenType : std::int64_t {
  kNormalToken = 1,
  kUnknownToken = 2,
  kControlToken = 3,      // recognised in a text, special
  kUserDefinedToken = 4,  // recognised in a text
  kUnusedToken = 5,
  kByteToken = 6,
};

/// The character that SentencePiece writes for a space.
constexpr const char* kMark = "\u2581";

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The two cases of a word: capitals and then small letters, or capitals and then perhaps small letters.
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                                            R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                                            R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class Cut { kGpt2, kLlama3, kQwen2, kDigitsThenGpt2, kO200k, kTekken, kDefault };

/// How the tokenizer behind a name of tokenizer.ggml.pre cuts its text, and what it does besides.
struct PreRow {
  std::string_view name;
  Cut cut;
  bool has_nfc = false;
  bool ignores_merges = false;
  bool adds_bos = false;  ///< where tokenizer.ggml.add_bos_token is absent
};
constexpr PreRow kPreRows[] = {
    {"default", Cut::kDefault},
    {"gpt-2", Cut::kGpt2},
    {"phi-2", Cut::kGpt2},
    {"mpt", Cut::kGpt2, /*has_nfc=*/true},  // the vocabulary of GPT-NeoX
    {"olmo", Cut::kGpt2, /*has_nfc=*/true},
    {"llama-bpe", Cut::kLlama3, /*has_nfc=*/false, /*ignores_merges=*/true, /*adds_bos=*/true},
    {"dbrx", Cut::kLlama3},
    {"smaug-bpe", Cut::kLlama3},
    {"qwen2", Cut::kQwen2, /*has_nfc=*/true},
    {"deepseek-r1-qwen", Cut::kQwen2, /*has_nfc=*/true},
    {"stablelm2", Cut::kQwen2},
    {"smollm", Cut::kDigitsThenGpt2},
    {"starcoder", Cut::kDigitsThenGpt2},
    {"refact", Cut::kDigitsThenGpt2},
    {"command-r", Cut::kDigitsThenGpt2},
    {"gpt-4o", Cut::kO200k},
    {"tekken", Cut::kTekken, /*has_nfc=*/false, /*ignores_merges=*/true, /*adds_bos=*/true},
};

void set_cut(Cut cut, TokenizerSource& source) {
  auto& steps = source.pre_tokenizer.steps;
  source.pre_tokenizer.is_byte_level = true;
  const auto isolate = [&](std::string_view pattern) { steps.emplace_back(isolate_pattern(pattern, source.origin)); };
  switch (cut) {
    case Cut::kGpt2: return isolate(gpt2_pattern());
    case Cut::kLlama3: return isolate(kLlama3Pattern);
    case Cut::kQwen2: return isolate(kQwen2Pattern);
    case Cut::kO200k: return isolate(kO200kPattern);
    case Cut::kTekken: return isolate(kTekkenPattern);
    case Cut::kDigitsThenGpt2: steps.emplace_back(DigitsStep{.individual = true}); return isolate(gpt2_pattern());
    case Cut::kDefault:
      isolate(R"([\p{P}\$\+<=>\^~\|]+)");
      isolate(gpt2_pattern());
      isolate(R"(\p{N}+)");
      return isolate("[0-9][0-9][0-9]");
  }
}

/// The row of tokenizer.ggml.pre, or what stands in for a file without it.
const PreRow& find_pre_row(const io::GgufView& gguf, TokenizerSource& source) {
  const std::string* pre = gguf.find_string("tokenizer.ggml.pre");
  std::string_view name = pre == nullptr ? "default" : std::string_view(*pre);
  if (pre == nullptr) {
    const auto* architecture = gguf.find_string("general.architecture");
    if (architecture != nullptr && *architecture == "gptneox") {
      name = "mpt";  // the only vocabulary of that architecture
    } else {
      source.warnings.push_back(format(
          "warning: '{}' has no tokenizer.ggml.pre: its text is cut as by 'default', as in llama.cpp; tokens may differ from those the "
          "model was trained on (convert the model again with a newer llama.cpp)",
          source.origin));
    }
  }
  const auto* row = std::ranges::find(kPreRows, name, &PreRow::name);
  if (row != std::end(kPreRows)) return *row;
  std::string names;
  for (const PreRow& known : kPreRows) names += (names.empty() ? "" : ", ") + std::string(known.name);
  fail(ErrorKind::kUnsupported, "{}: tokenizer.ggml.pre '{}' is not implemented; Quiver knows {}", source.origin, name, names);
}

struct TypedToken {
  std::string spelling;
  std::int64_t type = kNormalToken;
};

std::vector<TypedToken> read_tokens(const io::GgufView& gguf) {
  auto tokens = gguf.require_string_array("tokenizer.ggml.tokens");
  const auto types = gguf.find_int_array("tokenizer.ggml.token_type");
  if (types && types->size() != tokens.size()) {
    fail(ErrorKind::kBadFormat, "{}: {} tokens, but {} token types", gguf.origin(), tokens.size(), types->size());
  }
  if (static_cast<std::int64_t>(tokens.size()) > kMaxTokenId) {
    fail(ErrorKind::kUnsupported, "{}: a vocabulary of {} tokens; at most {} are read", gguf.origin(), tokens.size(), kMaxTokenId);
  }
  std::vector<TypedToken> out;
  out.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) out.push_back({std::move(tokens[i]), types ? (*types)[i] : kNormalToken});
  return out;
}

void add_vocabulary(const std::vector<TypedToken>& tokens, TokenizerSource& source) {
  for (const auto& [spelling, type] : tokens) {
    const auto id = static_cast<std::int32_t>(source.bpe.vocabulary.size());
    source.bpe.vocabulary.emplace_back(spelling, id);
    const bool special = type == kControlToken || type == kUnknownToken;
    if (spelling.empty() || !(special || type == kUserDefinedToken)) continue;
    source.added_tokens.push_back({.content = spelling, .id = id, .special = special});
  }
}

/// A merge is two tokens with a space between. No token holds a space: it is spelled "Ġ" or "▁".
void add_merges(const io::GgufView& gguf, TokenizerSource& source) {
  for (const std::string& merge : gguf.require_string_array("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ');
    if (space == std::string::npos || merge.find(' ', space + 1) != std::string::npos) {
      fail(ErrorKind::kBadFormat, "{}: merge {}, '{}', is not two tokens with a space between", source.origin, source.bpe.merges.size(),
           merge);
    }
    source.bpe.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
}

std::optional<std::int32_t> find_id(const io::GgufView& gguf, std::string_view key) {
  const auto id = gguf.find_int(key);
  if (!id) return std::nullopt;
  if (*id < 0 || *id > kMaxTokenId) {
    fail(ErrorKind::kBadFormat, "{}: {} is {}; ids are 0 to {}", gguf.origin(), key, *id, kMaxTokenId);
  }
  return static_cast<std::int32_t>(*id);
}

/// `default_id` where the key is absent and the vocabulary has such an id.
std::optional<std::int32_t> find_id_or(const io::GgufView& gguf, std::string_view key, std::int32_t default_id, std::size_t num_tokens) {
  const auto id = find_id(gguf, key);
  if (id || static_cast<std::size_t>(default_id) >= num_tokens) return id;
  return default_id;
}

/// Byte-level BPE: "gpt2". Returns whether BOS is added where the file does not say.
bool read_byte_level(const io::GgufView& gguf, TokenizerSource& source) {
  add_vocabulary(read_tokens(gguf), source);
  add_merges(gguf, source);
  const PreRow& row = find_pre_row(gguf, source);
  set_cut(row.cut, source);
  if (row.has_nfc) source.normalizer = {NormalForm::kNfc};
  source.bpe.ignore_merges = row.ignores_merges;
  source.bos_id = find_id(gguf, "tokenizer.ggml.bos_token_id");
  return row.adds_bos;
}

/// What "llama" and "gemma4" share: spaces as marks, characters without a token as bytes.
void read_marked(bool has_prefix, std::optional<std::int32_t> unk, TokenizerSource& source) {
  if (has_prefix) source.normalizer.emplace_back(PrependStep{kMark});
  source.normalizer.emplace_back(ReplaceStep{.pattern = " ", .content = kMark});
  source.decoder = {.edits = {ReplaceStep{.pattern = kMark, .content = " "}}, .has_byte_fallback = true};
  if (has_prefix) source.decoder.strips = {{.character = " ", .start = 1}};
  source.bpe.symbols = BpeSymbols::kCharacters;
  source.bpe.byte_fallback = source.bpe.fuse_unk = true;
  if (!unk) return;
  const auto& vocabulary = source.bpe.vocabulary;
  if (static_cast<std::size_t>(*unk) >= vocabulary.size()) {
    fail(ErrorKind::kMismatch, "{}: the unknown token has the id {}, outside the vocabulary of {} ids", source.origin, *unk,
         vocabulary.size());
  }
  source.bpe.unk_token = vocabulary[static_cast<std::size_t>(*unk)].first;
}

/// SentencePiece BPE with scores in place of merges: "llama".
void read_scored(const io::GgufView& gguf, TokenizerSource& source) {
  auto tokens = read_tokens(gguf);
  const auto unk = find_id_or(gguf, "tokenizer.ggml.unknown_token_id", 0, tokens.size());
  const auto found = gguf.metadata().find("tokenizer.ggml.scores");
  const auto* scores = found == gguf.metadata().end() ? nullptr : std::get_if<std::vector<double>>(&found->second);
  if (scores == nullptr || scores->size() != tokens.size()) {
    fail(ErrorKind::kBadFormat, "{}: {} tokens, but {}; a SentencePiece tokenizer ('llama') has tokenizer.ggml.scores, a number for each",
         source.origin, tokens.size(), scores == nullptr ? "no scores" : format("{} scores", scores->size()));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    // Placeholders may be of this type too, and a text that spells one is text.
    if (tokens[i].type == kUnknownToken && static_cast<std::int32_t>(i) != unk) tokens[i].type = kUnusedToken;
    const auto type = tokens[i].type;
    if (std::isnan((*scores)[i])) fail(ErrorKind::kBadFormat, "{}: the score of token {} is not a number", source.origin, i);
    if (tokens[i].spelling.empty() || type == kUnknownToken || type == kControlToken || type == kByteToken) continue;
    source.bpe.scores.emplace_back(tokens[i].spelling, static_cast<float>((*scores)[i]));
  }
  add_vocabulary(tokens, source);
  read_marked(gguf.find_bool("tokenizer.ggml.add_space_prefix").value_or(true), unk, source);
  source.bos_id = find_id_or(gguf, "tokenizer.ggml.bos_token_id", 1, tokens.size());
  // Phi-3's tokens take the white space after them along, which a GGUF file cannot say.
  const auto* architecture = gguf.find_string("general.architecture");
  if (architecture == nullptr || *architecture != "phi3") return;
  for (AddedToken& token : source.added_tokens) {
    token.rstrip = token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
  }
}

/// SentencePiece's characters with ranked merges: "gemma4". Merges do not make runs of line breaks: those are tokens by themselves.
void read_gemma4(const io::GgufView& gguf, TokenizerSource& source) {
  auto tokens = read_tokens(gguf);
  for (TypedToken& token : tokens) {
    const bool is_run = !token.spelling.empty() && token.spelling.find_first_not_of('\n') == std::string::npos;
    if (is_run && token.type == kNormalToken) token.type = kUserDefinedToken;
  }
  add_vocabulary(tokens, source);
  add_merges(gguf, source);
  read_marked(/*has_prefix=*/false, find_id(gguf, "tokenizer.ggml.unknown_token_id"), source);
  source.bos_id = find_id(gguf, "tokenizer.ggml.bos_token_id");
}

}  // namespace

std::vector<std::string_view> gguf_pre_names() {
  std::vector<std::string_view> names;
  for (const PreRow& row : kPreRows) names.push_back(row.name);
  std::rotate(names.begin(), names.begin() + 1, names.end());
  return names;
}

Tokenizer Tokenizer::from_gguf(const io::GgufView& gguf) {
  TokenizerSource source;
  source.origin = gguf.origin();
  source.sha256 = sha256_hex(gguf.metadata_file());
  const std::string& model = gguf.require_string("tokenizer.ggml.model");
  bool adds_bos = true;
  if (model == "gpt2") {
    adds_bos = read_byte_level(gguf, source);
  } else if (model == "llama") {
    read_scored(gguf, source);
  } else if (model == "gemma4") {
    read_gemma4(gguf, source);
  } else {
    fail(ErrorKind::kUnsupported,
         "{}: tokenizer.ggml.model '{}' is not implemented; Quiver reads BPE: of bytes ('gpt2'), and as SentencePiece has it ('llama', "
         "'gemma4')",
         source.origin, model);
  }
  source.pad_id = find_id(gguf, "tokenizer.ggml.padding_token_id");
  // The end of a turn of a conversation ends a text as well.
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const auto id = find_id(gguf, key);
    if (id && std::ranges::find(source.eos_ids, *id) == source.eos_ids.end()) source.eos_ids.push_back(*id);
  }
  if (source.eos_ids.empty() && model == "llama" && source.bpe.vocabulary.size() > 2) source.eos_ids.push_back(2);
  if ((model == "gemma4" || gguf.find_bool("tokenizer.ggml.add_bos_token").value_or(adds_bos)) && source.bos_id) {
    source.post_processor.insert(source.post_processor.begin(), {.is_text = false, .ids = {*source.bos_id}});
  }
  if (gguf.find_bool("tokenizer.ggml.add_eos_token").value_or(false) && !source.eos_ids.empty()) {
    source.post_processor.push_back({.is_text = false, .ids = {source.eos_ids.front()}});
  }
  return make_tokenizer(std::move(source));
}

}  // namespace quiver::text
