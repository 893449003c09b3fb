// Byte pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quiver::text {

/// What a BPE model is made of. Tokens are spelled as in the vocabulary, bytes as printable characters.
struct BpeSource {
  std::vector<std::pair<std::string, std::int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  ///< by rank, the first merge first
  std::optional<std::string> unk_token;                     ///< stands for bytes that have no token; without it they are dropped
  bool fuse_unk = false;                                    ///< one unk token for a run of such bytes
  bool ignore_merges = false;                               ///< a piece that is a token as a whole is not merged from its bytes
};

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using TokenMap = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

/// A byte-level BPE model. Immutable but for a bounded cache of pieces; thread-safe.
class Bpe {
 public:
  /// `origin` names the source in messages; ids are 0 or more. Throws kBadFormat if a token or an id comes twice, or if a merge or
  /// unk_token names a token that the vocabulary does not have.
  Bpe(const BpeSource& source, const std::string& origin);

  /// Appends the ids of a piece, given as raw bytes: until no pair of neighbours has a merge, the pair of lowest rank,
  /// and of these the leftmost, becomes one token (Sennrich et al. 2016, algorithm 1). O(n log n) in its bytes.
  void encode(std::string_view piece, std::vector<std::int32_t>& out) const;

  /// By spelling.
  const TokenMap& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    std::uint64_t pair = kNoPair;  ///< left id, right id
    std::int32_t rank = 0;
    std::int32_t id = 0;
  };
  struct Workspace;
  class Cache;
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void build_merge_table(const BpeSource& source, const std::string& origin);
  void encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const;
  void merge_all(Workspace& work) const;

  TokenMap vocabulary_;
  TokenMap whole_pieces_;  ///< raw bytes -> id; filled for ignore_merges only
  std::array<std::int32_t, 256> byte_ids_{};
  std::optional<std::int32_t> unk_id_;
  bool fuse_unk_ = false;
  std::vector<Merge> merges_;  ///< open addressing, a power of two long
  std::shared_ptr<Cache> cache_;
};

}  // namespace quiver::text
