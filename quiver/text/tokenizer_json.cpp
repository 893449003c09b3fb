// tokenizer.json, the file of Hugging Face's `tokenizers`.
#include <nlohmann/json.hpp>
#include <span>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/json.h"
#include "quiver/text/tokenizer_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

using nlohmann::json;

std::int32_t checked_id(std::int64_t id, const std::string& what, const std::string& where) {
  if (id < 0 || id > kMaxTokenId) {
    fail(ErrorKind::kBadFormat, "{}: '{}' has the id {}; ids are 0 to {}", where, what, id, kMaxTokenId);
  }
  return static_cast<std::int32_t>(id);
}

const json& member_or_null(const json& object, const char* key) {
  static const json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

/// A merge is "left right" or, in newer files, ["left", "right"].
std::pair<std::string, std::string> parse_merge(const json& merge, std::size_t rank, const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(ErrorKind::kBadFormat, "{}: merge {} is neither \"left right\" nor [\"left\", \"right\"]", where, rank);
}

void refuse_affix(const json& model, const char* key, const std::string& where) {
  const auto value = io::find_string(model, key, where);
  if (value && !value->empty()) {
    fail(ErrorKind::kUnsupported, "{}: {} '{}' is not implemented; Quiver reads tokenizers that have none", where, key, *value);
  }
}

BpeSource parse_model(const json& model, const PreTokenizer& pre_tokenizer, const std::string& origin) {
  const std::string where = origin + ": model";
  // Files older than the member "type" tell a BPE model by its merges.
  const auto type = io::find_string(model, "type", where);
  if (type.value_or("BPE") != "BPE") {
    fail(ErrorKind::kUnsupported, "{} '{}' is not implemented; Quiver reads BPE tokenizers only", where, *type);
  }
  refuse_affix(model, "continuing_subword_prefix", where);
  refuse_affix(model, "end_of_word_suffix", where);
  if (io::find_double(model, "dropout", where).value_or(0) != 0) {
    fail(ErrorKind::kUnsupported, "{}: dropout, which makes tokens random, is not implemented", where);
  }
  BpeSource out;
  out.symbols = pre_tokenizer.is_byte_level ? BpeSymbols::kBytes : BpeSymbols::kCharacters;
  out.byte_fallback = io::find_bool(model, "byte_fallback", where).value_or(false);
  out.unk_token = io::find_string(model, "unk_token", where);
  out.fuse_unk = io::find_bool(model, "fuse_unk", where).value_or(false);
  out.ignore_merges = io::find_bool(model, "ignore_merges", where).value_or(false);
  for (const auto& [token, id] : io::require_object(model, "vocab", where).items()) {
    if (!id.is_number_integer()) fail(ErrorKind::kBadFormat, "{}: the id of token '{}' is no integer", where, token);
    out.vocabulary.emplace_back(token, checked_id(id.get<std::int64_t>(), token, where));
  }
  for (const json& merge : io::require_array(model, "merges", where)) {
    out.merges.push_back(parse_merge(merge, out.merges.size(), where));
  }
  if (out.symbols == BpeSymbols::kBytes && out.byte_fallback) {
    const TokenMap tokens(out.vocabulary.begin(), out.vocabulary.end());
    for (int byte = 0; byte < 256; ++byte) {
      const auto spelling = byte_spelling(static_cast<std::uint8_t>(byte));
      if (tokens.contains(spelling)) continue;
      fail(ErrorKind::kUnsupported,
           "{}: byte_fallback for the byte {}, '{}' in the spelling of ByteLevel, is not implemented; give it a token", where, byte,
           spelling);
    }
  }
  return out;
}

std::vector<AddedToken> parse_added_tokens(const json& list, const std::string& origin) {
  std::vector<AddedToken> out;
  if (list.is_null()) return out;
  const std::string where = origin + ": added_tokens";
  if (!list.is_array()) fail(ErrorKind::kBadFormat, "{} is no array", where);
  for (const json& item : list) {
    AddedToken token;
    token.content = io::require_string(item, "content", where);
    if (token.content.empty()) continue;  // `tokenizers` passes over it as well
    token.id = checked_id(io::require_int(item, "id", where), token.content, where);
    token.special = io::find_bool(item, "special", where).value_or(false);
    token.single_word = io::find_bool(item, "single_word", where).value_or(false);
    token.lstrip = io::find_bool(item, "lstrip", where).value_or(false);
    token.rstrip = io::find_bool(item, "rstrip", where).value_or(false);
    token.normalized = io::find_bool(item, "normalized", where).value_or(!token.special);
    out.push_back(std::move(token));
  }
  return out;
}

TemplateItem parse_template_item(const json& item, const json& special_tokens, const std::string& where) {
  if (item.is_object() && item.contains("Sequence")) {
    const std::string sequence = io::require_string(item["Sequence"], "id", where);
    if (sequence != "A") {
      fail(ErrorKind::kBadFormat, "{}: the template of a single text names the sequence '{}'; it is 'A'", where, sequence);
    }
    return {.is_text = true, .ids = {}};
  }
  const json& special = io::require_object(item, "SpecialToken", where);
  const std::string name = io::require_string(special, "id", where);
  TemplateItem out;
  const json& entry = io::require_object(special_tokens, name, where + ": special_tokens");
  for (const json& id : io::require_array(entry, "ids", where + ": special_tokens")) {
    if (!id.is_number_integer()) fail(ErrorKind::kBadFormat, "{}: an id of '{}' is no integer", where, name);
    out.ids.push_back(checked_id(id.get<std::int64_t>(), name, where));
  }
  return out;
}

void parse_post_processor(const json& processor, const std::string& origin, bool& has_template, std::vector<TemplateItem>& out) {
  if (processor.is_null()) return;
  const std::string where = origin + ": post_processor";
  const std::string type = io::require_string(processor, "type", where);
  if (type == "Sequence") {
    for (const json& child : io::require_array(processor, "processors", where)) {
      parse_post_processor(child, origin, has_template, out);
    }
  } else if (type == "TemplateProcessing") {
    if (has_template) fail(ErrorKind::kUnsupported, "{}: a second TemplateProcessing is not implemented", where);
    has_template = true;
    out.clear();
    const json special_tokens = processor.value("special_tokens", json::object());
    for (const json& item : io::require_array(processor, "single", where)) {
      out.push_back(parse_template_item(item, special_tokens, where));
    }
  } else if (type != "ByteLevel") {  // which changes offsets only
    fail(ErrorKind::kUnsupported, "{} '{}' is not implemented; Quiver knows ByteLevel, TemplateProcessing and Sequence", where, type);
  }
}

}  // namespace

Tokenizer Tokenizer::from_tokenizer_json(const nlohmann::json& json, const std::string& origin) {
  if (!json.is_object()) {
    fail(ErrorKind::kBadFormat, "{}: a tokenizer.json is a JSON object, not {}", origin, json.type_name());
  }
  TokenizerSource source;
  source.origin = origin;
  const auto description = nlohmann::json::to_cbor(json);
  source.sha256 = Sha256().update(std::as_bytes(std::span(description))).hex();
  source.normalizer = parse_normalizer(member_or_null(json, "normalizer"), origin);
  source.pre_tokenizer = parse_pre_tokenizer(member_or_null(json, "pre_tokenizer"), origin);
  source.bpe = parse_model(io::require_object(json, "model", origin), source.pre_tokenizer, origin);
  source.added_tokens = parse_added_tokens(member_or_null(json, "added_tokens"), origin);
  bool has_template = false;
  parse_post_processor(member_or_null(json, "post_processor"), origin, has_template, source.post_processor);
  source.decoder = parse_decoder(member_or_null(json, "decoder"), origin);
  return make_tokenizer(std::move(source));
}

}  // namespace quiver::text
