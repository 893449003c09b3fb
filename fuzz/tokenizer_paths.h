// What the fuzz target tokenizer_paths runs, shared with the test that runs it over the seed corpus: a BPE model drawn from bytes must
// encode as the slow, obvious merge does, from the cache too.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/slow_merge.h"
#include "quiver/text/bpe.h"
#include "quiver/text/unicode.h"

namespace quiver::fuzz {

/// A model over the letters "a" to "h", and a piece of these and letters without a token.
struct BpeCase {
  text::BpeSource source;
  std::string piece;
};

/// Byte 0: options; byte 1: how many letters have a token, and how many merges there are; two bytes for each merge; then the piece.
inline BpeCase bpe_case(std::span<const std::uint8_t> bytes) {
  const auto take = [&bytes] {
    if (bytes.empty()) return std::uint8_t{0};
    const auto first = bytes.front();
    bytes = bytes.subspan(1);
    return first;
  };
  BpeCase drawn;
  auto& source = drawn.source;
  auto& piece = drawn.piece;
  std::vector<std::string> tokens;
  const auto add = [&](const std::string& token) {
    for (const auto& other : tokens) {
      if (other == token) return;
    }
    source.vocabulary.emplace_back(token, static_cast<std::int32_t>(tokens.size()));
    tokens.push_back(token);
  };
  const auto options = take(), sizes = take();
  for (int letter = 0; letter <= sizes % 6; ++letter) add(std::string(1, static_cast<char>('a' + letter)));
  if ((options & 1) != 0) source.unk_token = "a";
  source.fuse_unk = (options & 2) != 0;
  source.ignore_merges = (options & 4) != 0;
  for (int merge = sizes / 6; merge > 0; --merge) {
    const auto left = tokens[take() % tokens.size()], right = tokens[take() % tokens.size()];
    if (left.size() + right.size() > 16) continue;
    source.merges.emplace_back(left, right);
    add(left + right);
  }
  for (const auto byte : bytes.first(std::min<std::size_t>(bytes.size(), 400))) piece += static_cast<char>('a' + byte % 8);
  return drawn;
}

/// Sennrich et al. 2016, algorithm 1, literally: merges the best pair of the whole piece once, and repeats.
inline std::vector<std::int32_t> merge_slowly(const text::BpeSource& source, std::string_view piece) {
  std::map<std::string, std::int32_t, std::less<>> ids(source.vocabulary.begin(), source.vocabulary.end());
  if (const auto whole = ids.find(piece); source.ignore_merges && whole != ids.end()) return {whole->second};
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t rank = 0; rank < source.merges.size(); ++rank) ranks[source.merges[rank]] = rank;  // the last of equals counts
  std::vector<std::string> symbols;
  bool after_unk = false;
  for (const char letter : piece) {
    const std::string symbol(1, letter);
    const bool is_known = ids.contains(symbol);
    if (is_known) symbols.push_back(symbol);
    if (!is_known && source.unk_token && !(source.fuse_unk && after_unk)) symbols.push_back(*source.unk_token);
    after_unk = !is_known;
  }
  return merge_by_definition(symbols, ids, [&](const std::string& left, const std::string& right) -> std::optional<double> {
    const auto found = ranks.find({left, right});
    return found == ranks.end() ? std::nullopt : std::optional(static_cast<double>(found->second));
  });
}

inline void run_tokenizer_paths(std::span<const std::byte> bytes) {
  const auto [source, piece] = bpe_case({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  const text::Bpe bpe(source, "fuzz");
  for (const auto length : {piece.size(), piece.size() / 2, std::min<std::size_t>(piece.size(), 64)}) {  // 64 bytes are cached
    const std::string_view part = std::string_view(piece).substr(0, length);
    const auto expected = part.empty() ? std::vector<std::int32_t>{} : merge_slowly(source, part);
    for (const char* how : {"merged", "from the cache"}) {
      std::vector<std::int32_t> found;
      bpe.encode(part, found);
      if (found != expected) throw std::logic_error("the piece '" + std::string(part) + "' is encoded in another way, " + how);
    }
  }
}

}  // namespace quiver::fuzz
