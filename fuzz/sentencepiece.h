// What the fuzz targets of tokenizers of SentencePiece's kind run, shared with the test that runs them over the seed corpora.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/slow_merge.h"
#include "fuzz/support.h"
#include "fuzz/tokenizer.h"
#include "quiver/io/gguf.h"
#include "quiver/text/bpe.h"

namespace quiver::fuzz {

/// All bytes, some merges over marks and characters of several bytes; a text that it encodes and decodes comes back with spaces for marks.
inline text::Tokenizer lossless_marked_tokenizer() {
  nlohmann::json vocab{{"<unk>", 0}};
  for (int byte = 0; byte < 256; ++byte) vocab[format("<0x{:02X}>", byte)] = byte + 1;
  nlohmann::json merges = nlohmann::json::array();
  for (const char* token : {"a", "t", "h", "é", "▁", "\n"}) vocab[token] = vocab.size();
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"▁", "▁"}, {"t", "h"}, {"▁", "th"}, {"a", "a"}, {"aa", "aa"}, {"é", "a"}, {"\n", "\n"}, {"▁▁", "▁▁"}}) {
    vocab[left + right] = vocab.size();
    merges.push_back({left, right});
  }
  const nlohmann::json to_mark = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const nlohmann::json to_space = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  return text::Tokenizer::from_tokenizer_json(
      {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}, {"byte_fallback", true}, {"unk_token", "<unk>"}}},
       {"normalizer", to_mark},
       {"decoder", {{"type", "Sequence"}, {"decoders", {to_space, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}}},
      "fuzz");
}

/// A model over a few characters of one to three bytes, and a text of these and characters without a token.
struct MarkedCase {
  text::BpeSource source;
  std::string piece;
};

inline constexpr std::array<const char*, 8> kCharacters{"a", "b", "▁", "é", "日", "\n", "ü", "x"};

/// Byte 0: options; byte 1: which characters have a token; byte 2: which of the bytes of é, ü and 日 have one, and how many merges there
/// are; two bytes for each merge, its score being the first; then the text.
inline MarkedCase marked_case(std::span<const std::uint8_t> bytes) {
  const auto take = [&bytes] {
    if (bytes.empty()) return std::uint8_t{0};
    const auto first = bytes.front();
    bytes = bytes.subspan(1);
    return first;
  };
  MarkedCase drawn;
  auto& source = drawn.source;
  source.symbols = text::BpeSymbols::kCharacters;
  std::vector<std::string> tokens;
  const auto add = [&](const std::string& token) {
    for (const auto& other : tokens) {
      if (other == token) return;
    }
    source.vocabulary.emplace_back(token, static_cast<std::int32_t>(tokens.size()));
    tokens.push_back(token);
  };
  const auto options = take(), characters = take(), sizes = take();
  add("<unk>");
  if ((options & 1) != 0) source.unk_token = "<unk>";
  source.fuse_unk = (options & 2) != 0;
  source.byte_fallback = (options & 4) != 0;
  const bool is_scored = (options & 8) != 0;
  constexpr std::array<const char*, 4> kByteTokens{"<0xC3>", "<0xA9>", "<0xBC>", "<0x78>"};
  for (std::size_t i = 0; i < kByteTokens.size(); ++i) {
    if ((sizes >> i & 1) != 0) add(kByteTokens[i]);
  }
  if ((options & 16) != 0) {
    for (const char* token : {"<0xE6>", "<0x97>", "<0xA5>"}) add(token);
  }
  const auto first_character = tokens.size();
  for (std::size_t i = 0; i < kCharacters.size(); ++i) {
    if ((characters >> i & 1) != 0) add(kCharacters[i]);
  }
  const auto first = is_scored ? first_character : 0;  // scores make tokens of text; merges may name any
  for (int merge = sizes >> 4; merge > 0 && tokens.size() > first; --merge) {
    const auto left = take(), right = take();
    const auto merged = std::pair(tokens[first + left % (tokens.size() - first)], tokens[first + right % (tokens.size() - first)]);
    if (merged.first.size() + merged.second.size() > 40) continue;
    source.merges.push_back(merged);
    add(merged.first + merged.second);
  }
  if (is_scored) {
    source.merges.clear();
    for (std::size_t i = first_character; i < tokens.size(); ++i) {
      source.scores.emplace_back(tokens[i], -static_cast<float>(tokens[i].size() * 7 % 5));
    }
  }
  for (const auto byte : bytes.first(std::min<std::size_t>(bytes.size(), 120))) drawn.piece += kCharacters[byte % kCharacters.size()];
  return drawn;
}

/// What a text starts as: its characters' tokens, or those of their bytes, or unk. An unk comes when the next character with a token does.
inline std::vector<std::string> marked_symbols(const text::BpeSource& source, std::string_view piece) {
  const std::map<std::string, std::int32_t> ids(source.vocabulary.begin(), source.vocabulary.end());
  std::vector<std::string> symbols;
  bool is_pending = false;
  for_each_character(piece, [&](std::string_view bytes, char32_t) {
    std::vector<std::string> fallback;
    for (const char byte : bytes) {
      auto token = format("<0x{:02X}>", static_cast<std::uint8_t>(byte));
      if (source.byte_fallback && ids.contains(token)) fallback.push_back(std::move(token));
    }
    if (ids.contains(std::string(bytes))) {
      if (is_pending) symbols.push_back(*source.unk_token);
      is_pending = false;
      symbols.emplace_back(bytes);
    } else if (fallback.size() == bytes.size()) {
      symbols.insert(symbols.end(), fallback.begin(), fallback.end());
    } else if (source.unk_token) {
      if (is_pending && !source.fuse_unk) symbols.push_back(*source.unk_token);
      is_pending = true;
    }
  });
  if (is_pending) symbols.push_back(*source.unk_token);
  return symbols;
}

/// Merges the best pair of the whole text once, and repeats.
inline std::vector<std::int32_t> merge_marked_slowly(const text::BpeSource& source, std::string_view piece) {
  const std::map<std::string, std::int32_t> ids(source.vocabulary.begin(), source.vocabulary.end());
  const std::map<std::string, float> scores(source.scores.begin(), source.scores.end());
  std::map<std::pair<std::string, std::string>, double> ranks;
  for (std::size_t rank = 0; rank < source.merges.size(); ++rank) ranks[source.merges[rank]] = static_cast<double>(rank);
  const auto rank_of = [&](const std::string& left, const std::string& right) -> std::optional<double> {
    if (const auto found = ranks.find({left, right}); found != ranks.end()) return found->second;
    const auto found = scores.find(left + right);
    if (found == scores.end() || !scores.contains(left) || !scores.contains(right)) return std::nullopt;
    return -static_cast<double>(found->second);
  };
  return merge_by_definition(marked_symbols(source, piece), ids, rank_of);
}

/// A model drawn from bytes encodes as the slow merge does, from the cache too; and the bytes as a text survive a round trip.
inline void run_sentencepiece(std::span<const std::byte> bytes) {
  static const text::Tokenizer lossless = lossless_marked_tokenizer();
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto input = all.substr(0, 1000);
  check_texts(lossless, input, /*is_lossless=*/false);
  const auto decoded = lossless.decode(lossless.encode(input));
  std::string expected;
  text::append_replaced(expected, replace_invalid_utf8(input), {.pattern = "▁", .content = " "});
  expect(decoded == expected, "a round trip changed a text");

  const auto [source, piece] = marked_case({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  const text::Bpe bpe(source, "fuzz");
  const auto merged = merge_marked_slowly(source, piece);
  for (const char* how : {"merged", "from the cache"}) {
    std::vector<std::int32_t> found;
    bpe.encode(piece, found);
    expect(found == merged, ("the text '" + piece + "' is encoded in another way, " + how).c_str());
  }
}

/// A GGUF file's tokenizer, over the bytes of the file as a text and over the spellings of its own tokens.
inline void run_gguf_tokenizer(std::span<const std::byte> bytes) {
  try {
    const auto tokenizer = text::Tokenizer::from_gguf(io::GgufView::parse(bytes, "fuzz"));
    const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    check_texts(tokenizer, all.substr(0, 2000), /*is_lossless=*/false);
    std::string spellings;
    for (std::int32_t id = 0; id < tokenizer.vocab_size() && spellings.size() < 2000; ++id)
      spellings += tokenizer.token(id).value_or("") + " ";
    check_texts(tokenizer, spellings, /*is_lossless=*/false);
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
