// What the tokenizer's fuzz target runs, shared with the test that runs it over the seed corpus.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/text/tokenizer.h"
#include "quiver/text/unicode.h"

namespace quiver::fuzz {

/// All bytes, some merges over ASCII and over the halves of characters, and two added tokens; no normaliser.
inline text::Tokenizer lossless_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  const auto spelling = [](int byte) { return std::string(text::byte_spelling(static_cast<std::uint8_t>(byte))); };
  for (int byte = 0; byte < 256; ++byte) vocab[spelling(byte)] = byte;
  nlohmann::json merges = nlohmann::json::array();
  const auto merge = [&](const std::string& left, const std::string& right) {
    vocab[left + right] = vocab.size();
    merges.push_back({left, right});
  };
  merge(spelling(' '), "t");
  merge("t", "h");
  merge("a", "a");
  merge("aa", "aa");
  merge(spelling(0xE2), spelling(0x80));
  merge(spelling(0x80), spelling(0xE2));
  merge(spelling('\n'), spelling('\n'));
  const auto size = vocab.size();
  return text::Tokenizer::from_tokenizer_json(
      {{"model", {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", std::move(merges)}}},
       {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
       {"decoder", {{"type", "ByteLevel"}}},
       {"added_tokens",
        {{{"id", size}, {"content", "<s>"}, {"special", true}}, {{"id", size + 1}, {"content", "a<s>"}, {"single_word", true}}}}},
      "fuzz");
}

inline void check_texts(const text::Tokenizer& tokenizer, std::string_view input, bool is_lossless) {
  const auto ids = tokenizer.encode(input);
  text::StreamDecoder decoder(tokenizer);
  std::string streamed;
  for (const std::int32_t id : ids) {
    if (!tokenizer.token(id)) throw std::logic_error("an id outside the vocabulary");
    streamed += decoder.push(id);
    if (!is_valid_utf8(streamed)) throw std::logic_error("a stream that is not UTF-8");
  }
  streamed += decoder.finish();
  const std::string decoded = tokenizer.decode(ids);
  if (decoded != streamed) throw std::logic_error("a stream decodes in another way than its ids at once");
  if (is_lossless && decoded != replace_invalid_utf8(input)) throw std::logic_error("a round trip changed a text");
}

/// A tokenizer.json up to the first zero byte, then a text. Each half is also tried alone.
inline void run_tokenizer(std::span<const std::byte> bytes) {
  static const text::Tokenizer lossless = lossless_tokenizer();
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t zero = all.find('\0');
  const std::string_view input = zero == std::string_view::npos ? all : all.substr(zero + 1);
  check_texts(lossless, input, /*is_lossless=*/true);
  try {
    const auto description = io::parse_json(all.substr(0, zero), "fuzz");
    check_texts(text::Tokenizer::from_tokenizer_json(description, "fuzz"), input, /*is_lossless=*/false);
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
