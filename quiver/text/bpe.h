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

/// What merging starts from.
enum class BpeSymbols {
  kBytes,       ///< a vocabulary spells bytes as printable characters, as GPT-2's does
  kCharacters,  ///< of Unicode, as SentencePiece has it
};

/// What a BPE model is made of. Tokens are spelled as in the vocabulary.
struct BpeSource {
  BpeSymbols symbols = BpeSymbols::kBytes;
  std::vector<std::pair<std::string, std::int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  ///< by rank, the first merge first
  /// In place of `merges`: any two neighbours that spell one of these tokens merge, the highest score first.
  std::vector<std::pair<std::string, float>> scores;
  std::optional<std::string> unk_token;  ///< stands for symbols that have no token; without it they are dropped
  bool fuse_unk = false;                 ///< one unk token for a run of such symbols
  bool byte_fallback = false;            ///< a character without a token becomes the tokens "<0x41>" of its bytes, if all of them exist
  bool ignore_merges = false;            ///< a piece that is a token as a whole is not merged from its symbols
};

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using TokenMap = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

/// A BPE model. Immutable but for a bounded cache of pieces; thread-safe.
class Bpe {
 public:
  /// `origin` names the source in messages; ids are 0 or more. Throws kBadFormat if a token or an id comes twice, or if a merge or
  /// unk_token names a token that the vocabulary does not have. Throws kUnsupported for scores of tokens above kMaxScoredBytes.
  Bpe(const BpeSource& source, const std::string& origin);

  /// Appends the ids of a piece, given as raw bytes or as valid UTF-8, as the symbols are. Until no pair of neighbours has a merge, the
  /// pair of lowest rank, and of these the leftmost, becomes one token (Sennrich et al. 2016, algorithm 1). O(n log n) in its bytes.
  void encode(std::string_view piece, std::vector<std::int32_t>& out) const;

  static constexpr std::size_t kMaxScoredBytes = 512;

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
  class Characters;
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  std::vector<Merge> ranked_merges(const BpeSource& source, const std::string& origin) const;
  std::vector<Merge> scored_merges(const BpeSource& source, const std::string& origin) const;
  std::vector<std::pair<char32_t, char32_t>> joints_of(const std::vector<Merge>& merges) const;
  void build_merge_table(const std::vector<Merge>& merges);
  void encode_characters(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_part(std::string_view part, std::vector<std::int32_t>& out) const;
  void encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const;
  void start_with_bytes(std::string_view piece, Workspace& work) const;
  void start_with_characters(std::string_view piece, Workspace& work) const;
  void merge_all(Workspace& work) const;

  TokenMap vocabulary_;
  TokenMap whole_pieces_;                     ///< piece -> id; filled for ignore_merges only
  std::array<std::int32_t, 256> byte_ids_{};  ///< of the bytes themselves, or of the tokens that bytes fall back to
  std::optional<std::int32_t> unk_id_;
  bool fuse_unk_ = false;
  std::vector<Merge> merges_;                     ///< open addressing, a power of two long
  std::shared_ptr<const Characters> characters_;  ///< nullptr for symbols that are bytes
  std::shared_ptr<Cache> cache_;
};

}  // namespace quiver::text
