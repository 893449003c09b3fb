// The tokenizer in the metadata of a GGUF file: tokens, merges and token types; the pre-tokenizer by name only.
#include <algorithm>
#include <array>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/gguf.h"
#include "quiver/text/tokenizer_parts.h"

namespace quiver::text {
namespace {

/// ggml's token types that mark a token as one to be recognised in a text.
enum GgufTokenType : std::int64_t { kUnknownToken = 2, kControlToken = 3, kUserDefinedToken = 4 };

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// How the tokenizer behind a name of tokenizer.ggml.pre cuts its text.
void set_pre_tokenizer(const std::string& name, TokenizerSource& source) {
  auto& steps = source.pre_tokenizer.steps;
  const auto isolate = [&](std::string_view pattern) { steps.emplace_back(isolate_pattern(pattern, source.origin)); };
  if (name == "smollm") {
    steps.emplace_back(DigitsStep{.individual = true});
    isolate(gpt2_pattern());
  } else if (name == "gpt-2") {
    isolate(gpt2_pattern());
  } else if (name == "llama-bpe") {
    isolate(kLlama3Pattern);
    source.bpe.ignore_merges = true;
  } else if (name == "qwen2") {
    source.normalizer = {NormalizerStep::kNfc};
    isolate(kQwen2Pattern);
  } else if (name == "default") {
    isolate(R"([\p{P}\$\+<=>\^~\|]+)");
    isolate(gpt2_pattern());
    isolate(R"(\p{N}+)");
    isolate("[0-9][0-9][0-9]");
  } else {
    fail(ErrorKind::kUnsupported,
         "{}: tokenizer.ggml.pre '{}' is not implemented; Quiver knows smollm, gpt-2, llama-bpe, qwen2 and default", source.origin, name);
  }
}

void set_vocabulary(const io::GgufView& gguf, TokenizerSource& source) {
  const auto tokens = gguf.require_string_array("tokenizer.ggml.tokens");
  const auto types = gguf.find_int_array("tokenizer.ggml.token_type");
  if (types && types->size() != tokens.size()) {
    fail(ErrorKind::kBadFormat, "{}: {} tokens, but {} token types", source.origin, tokens.size(), types->size());
  }
  if (static_cast<std::int64_t>(tokens.size()) > kMaxTokenId) {
    fail(ErrorKind::kUnsupported, "{}: a vocabulary of {} tokens; at most {} are read", source.origin, tokens.size(), kMaxTokenId);
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    source.bpe.vocabulary.emplace_back(tokens[i], id);
    const std::int64_t type = types ? (*types)[i] : 0;
    const bool special = type == kControlToken || type == kUnknownToken;
    if (tokens[i].empty() || !(special || type == kUserDefinedToken)) continue;
    source.added_tokens.push_back({.content = tokens[i], .id = id, .special = special});
  }
  for (const std::string& merge : gguf.require_string_array("tokenizer.ggml.merges")) {
    // A space in a token is spelled "Ġ", so the only one parts the two tokens.
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

}  // namespace

Tokenizer Tokenizer::from_gguf(const io::GgufView& gguf) {
  TokenizerSource source;
  source.origin = gguf.origin();
  source.sha256 = sha256_hex(gguf.metadata_file());
  const std::string& model = gguf.require_string("tokenizer.ggml.model");
  if (model != "gpt2") {
    fail(ErrorKind::kUnsupported, "{}: tokenizer.ggml.model '{}' is not implemented; Quiver reads byte-level BPE tokenizers ('gpt2') only",
         source.origin, model);
  }
  set_vocabulary(gguf, source);
  const std::string* pre = gguf.find_string("tokenizer.ggml.pre");
  if (pre == nullptr) {
    source.warnings.push_back(format(
        "warning: '{}' has no tokenizer.ggml.pre: its text is cut as by 'default', as in llama.cpp; tokens may differ from those the "
        "model was trained on (convert the model again with a newer llama.cpp)",
        source.origin));
  }
  set_pre_tokenizer(pre == nullptr ? "default" : *pre, source);
  source.bos_id = find_id(gguf, "tokenizer.ggml.bos_token_id");
  source.pad_id = find_id(gguf, "tokenizer.ggml.padding_token_id");
  // The end of a turn of a conversation ends a text as well.
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const auto id = find_id(gguf, key);
    if (id && std::ranges::find(source.eos_ids, *id) == source.eos_ids.end()) source.eos_ids.push_back(*id);
  }
  if (gguf.find_bool("tokenizer.ggml.add_bos_token").value_or(false) && source.bos_id) {
    source.post_processor.insert(source.post_processor.begin(), {.is_text = false, .ids = {*source.bos_id}});
  }
  if (gguf.find_bool("tokenizer.ggml.add_eos_token").value_or(false) && !source.eos_ids.empty()) {
    source.post_processor.push_back({.is_text = false, .ids = {source.eos_ids.front()}});
  }
  return make_tokenizer(std::move(source));
}

}  // namespace quiver::text
