#include "quiver/text/decoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/text/pre_tokenizer.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

std::string edited(const ReplaceStep& step, std::string_view token, bool /*is_first*/) {
  std::string out;
  append_replaced(out, token, step);
  return out;
}

std::string edited(const MetaspaceEdit& edit, std::string_view token, bool is_first) {
  std::string out;
  append_replaced(out, token, {.pattern = edit.mark, .content = is_first && edit.drops_first ? "" : " "});
  return out;
}

std::string edited(const StripEdit& edit, std::string_view token, bool /*is_first*/) {
  for (auto left = edit.start; left > 0 && token.starts_with(edit.character); --left) token.remove_prefix(edit.character.size());
  for (auto left = edit.stop; left > 0 && token.ends_with(edit.character); --left) token.remove_suffix(edit.character.size());
  return std::string(token);
}

std::string all_edited(const std::vector<TokenEdit>& edits, std::string token, bool is_first) {
  for (const TokenEdit& edit : edits) {
    token = std::visit([&](const auto& one) { return edited(one, token, is_first); }, edit);
  }
  return token;
}

/// The byte of a token "<0x41>".
std::optional<std::uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  // `tokenizers` reads the number by Rust's rules, which allow a plus sign.
  const int high = token[3] == '+' ? 0 : digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<std::uint8_t>(high * 16 + low);
}

std::string bytes_if(bool is_byte_level, const std::string& text) { return is_byte_level ? bytes_of_spelling(text).value_or(text) : text; }

StripEdit parse_strip(const nlohmann::json& node, const std::string& where) {
  StripEdit edit{.character = io::require_string(node, "content", where),
                 .start = io::require_int(node, "start", where),
                 .stop = io::require_int(node, "stop", where)};
  if (!is_valid_utf8(edit.character) || count_code_points(edit.character) != 1) {
    fail(ErrorKind::kBadFormat, "{}: the content '{}' of a Strip is not one character", where, edit.character);
  }
  constexpr std::int64_t kMost = 64;
  if (std::min(edit.start, edit.stop) < 0 || std::max(edit.start, edit.stop) > kMost) {
    fail(ErrorKind::kUnsupported, "{}: a Strip of {} and {} characters; 0 to {} are implemented", where, edit.start, edit.stop, kMost);
  }
  return edit;
}

TokenEdit parse_edit(const nlohmann::json& node, const std::string& type, const std::string& where) {
  if (type == "Replace") return parse_replace(node, where);
  if (type == "Strip") return parse_strip(node, where);
  if (type == "Metaspace") {
    const auto marks = parse_metaspace(node, where);
    return MetaspaceEdit{.mark = marks.mark, .drops_first = marks.scheme != PrependScheme::kNever};
  }
  fail(ErrorKind::kUnsupported,
       "{} '{}' is not implemented; Quiver knows ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace and Sequence", where, type);
}

/// `is_joined`: the tokens read so far are one text.
void append_decoder(const nlohmann::json& node, const std::string& where, Decoder& out, bool& is_joined) {
  const std::string type = io::require_string(node, "type", where);
  if (type == "Sequence") {
    for (const auto& child : io::require_array(node, "decoders", where)) append_decoder(child, where, out, is_joined);
  } else if (type == "Fuse") {
    is_joined = true;
  } else if (is_joined) {
    if (type != "Strip") fail(ErrorKind::kUnsupported, "{}: '{}' after the tokens are joined is not implemented", where, type);
    out.strips.push_back(parse_strip(node, where));
  } else if (type == "ByteLevel") {
    out.is_byte_level = is_joined = true;
  } else if (type == "ByteFallback") {
    if (out.has_byte_fallback) fail(ErrorKind::kUnsupported, "{}: a second ByteFallback is not implemented", where);
    out.has_byte_fallback = true;
  } else {
    (out.has_byte_fallback ? out.later_edits : out.edits).push_back(parse_edit(node, type, where));
  }
}

}  // namespace

Decoder parse_decoder(const nlohmann::json& node, const std::string& origin) {
  const std::string where = origin + ": decoder";
  if (node.is_null()) {
    fail(ErrorKind::kUnsupported, "{} null, which puts spaces between tokens, is not implemented; give ByteLevel", where);
  }
  Decoder out;
  bool is_joined = false;
  append_decoder(node, where, out, is_joined);
  return out;
}

TokenText text_of_token(const Decoder& decoder, std::string_view spelling, bool is_first) {
  auto token = all_edited(decoder.edits, std::string(spelling), is_first);
  if (decoder.has_byte_fallback) {
    if (const auto byte = byte_of_token(token)) return {.text = std::string(1, static_cast<char>(*byte)), .is_byte = true};
  }
  return {.text = bytes_if(decoder.is_byte_level, all_edited(decoder.later_edits, std::move(token), is_first))};
}

void TokenJoiner::push(const Decoder& decoder, std::string_view spelling, TokenTextView later, std::string& out) {
  // A token after bytes is not the first even if their text has not come yet.
  const bool is_first = !has_token_;
  has_token_ = true;
  TokenText storage;
  auto token = later;
  if (is_first) {
    storage = text_of_token(decoder, spelling, /*is_first=*/true);
    token = {storage.text, storage.is_byte};
  }
  if (token.is_byte) {
    byte_run_ += token.text;
    return;
  }
  flush_bytes(decoder, out);
  has_text_ = true;
  join(decoder, token.text, out);
}

void TokenJoiner::flush_bytes(const Decoder& decoder, std::string& out) {
  if (byte_run_.empty()) return;
  const auto run = std::exchange(byte_run_, {});
  const bool is_text = is_valid_utf8(run);
  for (std::size_t i = 0; i < (is_text ? 1 : run.size()); ++i) {
    const auto text = all_edited(decoder.later_edits, is_text ? run : "\uFFFD", !has_text_);
    has_text_ = true;
    join(decoder, bytes_if(decoder.is_byte_level, text), out);
  }
}

void TokenJoiner::join(const Decoder& decoder, std::string_view text, std::string& out) {
  if (!decoder.is_byte_level || (incomplete_.empty() && is_ascii(text))) {
    if (decoder.strips.empty()) {
      out += text;
    } else {
      strip(decoder, std::string(text), out);
    }
    return;
  }
  incomplete_ += text;
  const std::size_t num_complete = incomplete_.size() - static_cast<std::size_t>(incomplete_tail(incomplete_));
  auto whole = replace_invalid_utf8(std::string_view(incomplete_).substr(0, num_complete));
  incomplete_.erase(0, num_complete);
  strip(decoder, std::move(whole), out);
}

void TokenJoiner::strip(const Decoder& decoder, std::string text, std::string& out) {
  strips_.resize(decoder.strips.size());
  for (std::size_t i = 0; i < strips_.size(); ++i) {
    const StripEdit& edit = decoder.strips[i];
    StripState& state = strips_[i];
    std::size_t begin = 0;
    while (!state.is_inside && begin < text.size()) {
      if (state.num_taken == edit.start || !std::string_view(text).substr(begin).starts_with(edit.character)) {
        state.is_inside = true;
      } else {
        begin += edit.character.size();
        ++state.num_taken;
      }
    }
    text = state.held + text.substr(begin);
    auto kept = std::string_view(text);
    for (auto left = edit.stop; left > 0 && kept.ends_with(edit.character); --left) kept.remove_suffix(edit.character.size());
    state.held = text.substr(kept.size());
    text.resize(kept.size());
  }
  out += text;
}

void TokenJoiner::finish(const Decoder& decoder, std::string& out) {
  flush_bytes(decoder, out);
  if (!incomplete_.empty()) strip(decoder, replace_invalid_utf8(std::exchange(incomplete_, {})), out);
  *this = TokenJoiner();
}

}  // namespace quiver::text
