#include "quiver/text/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>
#include <unordered_set>

#include "quiver/base/error.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

constexpr std::int32_t kNoToken = -1;

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

/// The finaliser of splitmix64, so that neighbouring ids do not share a run of slots.
std::size_t hash_pair(std::uint64_t key) {
  key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
  key = (key ^ key >> 27) * 0x94D049BB133111EBu;
  return static_cast<std::size_t>(key ^ key >> 31);
}

/// The character that starts at text[i], valid UTF-8, with its length; inline, since every character of a text comes here.
CodePoint decode_at(std::string_view text, std::size_t i) {
  const auto byte = [&](std::size_t k) { return static_cast<char32_t>(static_cast<std::uint8_t>(text[i + k])); };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

struct Candidate {
  std::int32_t rank;
  std::int32_t position;  ///< of the left symbol
  std::int32_t id;        ///< of the merged token
};

/// Orders a heap with the lowest rank, then the leftmost position, on top.
bool comes_later(const Candidate& a, const Candidate& b) { return a.rank != b.rank ? a.rank > b.rank : a.position > b.position; }

struct Symbol {
  std::int32_t id;  ///< kNoToken once it is merged into its left neighbour
  std::int32_t previous;
  std::int32_t next;
};

}  // namespace

struct Bpe::Workspace {
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;

  void add(std::int32_t id) {
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  }
};

/// The tokens of single characters, and which characters a merge can join. Two neighbours that both have a token and that no merge joins
/// stay apart whatever is around them, so a text can be cut between them. Pieces are short and repeat then, although nothing split the
/// text.
class Bpe::Characters {
 public:
  explicit Characters(const TokenMap& vocabulary) : low_(0x10000, kNoToken) {
    for (const auto& [token, id] : vocabulary) {
      if (token.empty()) continue;
      const auto [value, num_bytes] = decode_at(token, 0);
      if (static_cast<std::size_t>(num_bytes) != token.size()) continue;
      (value < low_.size() ? low_[value] : high_[value]) = id;
    }
  }

  std::int32_t id_of(char32_t c) const {
    if (c < low_.size()) return low_[c];
    const auto found = high_.find(c);
    return found == high_.end() ? kNoToken : found->second;
  }

  /// Keeps the pairs in a set of bits by hash: a pair that is not in it is certainly none of them.
  void set_joints(const std::vector<std::pair<char32_t, char32_t>>& joints) {
    const auto num_bits = std::bit_ceil(std::max<std::size_t>(16 * joints.size(), 1024));
    shift_ = 64 - std::countr_zero(num_bits);
    joints_.assign(num_bits / 64, 0);
    for (const auto& [left, right] : joints) joints_[bit_of(left, right) / 64] |= std::uint64_t{1} << bit_of(left, right) % 64;
  }
  bool may_join(char32_t left, char32_t right) const { return (joints_[bit_of(left, right) / 64] >> bit_of(left, right) % 64 & 1) != 0; }

 private:
  std::size_t bit_of(char32_t left, char32_t right) const {
    return static_cast<std::size_t>((std::uint64_t{left} << 21 | right) * 0x9E3779B97F4A7C15u >> shift_);
  }

  std::vector<std::int32_t> low_;  ///< by code point
  std::unordered_map<char32_t, std::int32_t> high_;
  std::vector<std::uint64_t> joints_;
  int shift_ = 0;
};

/// Pieces repeat: a text of a million words has some ten thousand different ones. Sharded, so that threads seldom
/// wait for each other; a full shard stops growing.
class Bpe::Cache {
 public:
  static constexpr std::size_t kMaxPieceBytes = 64;
  static constexpr std::size_t kMaxPieces = 4096;

  bool find(std::string_view piece, std::vector<std::int32_t>& out) {
    Shard& shard = shard_of(piece);
    const std::lock_guard lock(shard.mutex);
    const auto found = shard.pieces.find(piece);
    if (found == shard.pieces.end()) return false;
    out.insert(out.end(), found->second.begin(), found->second.end());
    return true;
  }

  void insert(std::string_view piece, const std::int32_t* first, const std::int32_t* last) {
    Shard& shard = shard_of(piece);
    const std::lock_guard lock(shard.mutex);
    if (shard.pieces.size() < kMaxPieces) shard.pieces.try_emplace(std::string(piece), first, last);
  }

 private:
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<std::int32_t>, StringHash, std::equal_to<>> pieces;
  };
  Shard& shard_of(std::string_view piece) { return shards_[StringHash{}(piece) >> 7 & (shards_.size() - 1)]; }

  std::array<Shard, 16> shards_;
};

Bpe::Bpe(const BpeSource& source, const std::string& origin) : fuse_unk_(source.fuse_unk), cache_(std::make_shared<Cache>()) {
  vocabulary_.reserve(source.vocabulary.size());
  std::unordered_set<std::int32_t> ids;
  ids.reserve(source.vocabulary.size());
  for (const auto& [token, id] : source.vocabulary) {
    if (!vocabulary_.emplace(token, id).second) {
      fail(ErrorKind::kBadFormat, "{}: token '{}' is twice in the vocabulary, the second time with id {}", origin, token, id);
    }
    if (!ids.insert(id).second) {
      fail(ErrorKind::kBadFormat, "{}: two tokens have the id {}, one of them '{}'", origin, id, token);
    }
    if (!source.ignore_merges) continue;
    if (source.symbols == BpeSymbols::kCharacters) {
      whole_pieces_.emplace(token, id);
    } else if (auto bytes = bytes_of_spelling(token)) {
      whole_pieces_.emplace(std::move(*bytes), id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<std::uint8_t>(byte);
    const bool is_byte_level = source.symbols == BpeSymbols::kBytes;
    const auto found = vocabulary_.find(is_byte_level ? std::string(byte_spelling(value)) : format("<0x{:02X}>", byte));
    const bool is_usable = found != vocabulary_.end() && (is_byte_level || source.byte_fallback);
    byte_ids_[static_cast<std::size_t>(byte)] = is_usable ? found->second : kNoToken;
  }
  if (source.unk_token) {
    const auto found = vocabulary_.find(*source.unk_token);
    if (found == vocabulary_.end()) {
      fail(ErrorKind::kBadFormat, "{}: unk_token '{}' is not in the vocabulary of {} tokens", origin, *source.unk_token,
           vocabulary_.size());
    }
    unk_id_ = found->second;
  }
  const auto merges = source.scores.empty() ? ranked_merges(source, origin) : scored_merges(source, origin);
  build_merge_table(merges);
  if (source.symbols != BpeSymbols::kCharacters) return;
  const auto characters = std::make_shared<Characters>(vocabulary_);
  characters->set_joints(joints_of(merges));
  characters_ = characters;
}

std::vector<Bpe::Merge> Bpe::ranked_merges(const BpeSource& source, const std::string& origin) const {
  if (source.merges.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    fail(ErrorKind::kBadFormat, "{}: {} merges are more than 2^31 - 1", origin, source.merges.size());
  }
  std::vector<Merge> out;
  out.reserve(source.merges.size());
  for (const auto& merge : source.merges) {
    const auto rank = static_cast<std::int32_t>(out.size());
    const auto id_of = [&](const std::string& token) {
      const auto found = vocabulary_.find(token);
      if (found == vocabulary_.end()) {
        fail(ErrorKind::kBadFormat, "{}: merge {} ('{}' and '{}') needs the token '{}', which the vocabulary lacks", origin, rank,
             merge.first, merge.second, token);
      }
      return found->second;
    };
    out.push_back({pair_key(id_of(merge.first), id_of(merge.second)), rank, id_of(merge.first + merge.second)});
  }
  return out;
}

std::vector<Bpe::Merge> Bpe::scored_merges(const BpeSource& source, const std::string& origin) const {
  TokenMap ranks;  // of the scored tokens; equal scores have equal ranks
  std::vector<float> scores;
  scores.reserve(source.scores.size());
  for (const auto& [token, score] : source.scores) scores.push_back(score);
  std::ranges::sort(scores, std::greater<>());
  for (const auto& [token, score] : source.scores) {
    if (token.size() > kMaxScoredBytes) {
      fail(ErrorKind::kUnsupported, "{}: the token '{}...' has {} bytes; scores of tokens up to {} are implemented", origin,
           replace_invalid_utf8(token.substr(0, 32)), token.size(), kMaxScoredBytes);
    }
    ranks.emplace(token, static_cast<std::int32_t>(std::ranges::lower_bound(scores, score, std::greater<>()) - scores.begin()));
  }
  std::vector<Merge> out;
  for (const auto& [token, rank] : ranks) {
    const std::string_view text = token;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<std::uint8_t>(text[cut]) & 0xC0) == 0x80) continue;  // inside a character
      const auto left = text.substr(0, cut), right = text.substr(cut);
      if (!ranks.contains(left) || !ranks.contains(right)) continue;
      out.push_back({pair_key(vocabulary_.find(left)->second, vocabulary_.find(right)->second), rank, vocabulary_.find(token)->second});
    }
  }
  return out;
}

/// The characters on both sides of every place that a merge joins.
std::vector<std::pair<char32_t, char32_t>> Bpe::joints_of(const std::vector<Merge>& merges) const {
  std::unordered_map<std::int32_t, std::string_view> spellings;
  spellings.reserve(vocabulary_.size());
  for (const auto& [token, id] : vocabulary_) spellings.emplace(id, token);
  std::vector<std::pair<char32_t, char32_t>> out;
  for (const Merge& merge : merges) {
    const auto left = spellings.at(static_cast<std::int32_t>(merge.pair >> 32)),
               right = spellings.at(static_cast<std::int32_t>(merge.pair));
    if (left.empty() || right.empty()) continue;  // no symbol is an empty token
    out.emplace_back(code_point_before(left, std::ssize(left)).value, decode_at(right, 0).value);
  }
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void Bpe::build_merge_table(const std::vector<Merge>& merges) {
  merges_.resize(std::bit_ceil(2 * merges.size() + 1));
  const std::size_t mask = merges_.size() - 1;
  for (const Merge& merge : merges) {
    std::size_t slot = hash_pair(merge.pair) & mask;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != merge.pair) slot = (slot + 1) & mask;
    merges_[slot] = merge;  // of a merge that is listed twice, the last counts
  }
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t slot = hash_pair(key) & mask;; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == key) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.empty()) return;
  if (!whole_pieces_.empty()) {
    if (const auto found = whole_pieces_.find(piece); found != whole_pieces_.end()) {
      out.push_back(found->second);
      return;
    }
  }
  if (characters_) {
    encode_characters(piece, out);
  } else {
    encode_part(piece, out);
  }
}

void Bpe::encode_characters(std::string_view piece, std::vector<std::int32_t>& out) const {
  std::size_t begin = 0;  // of the part that is not encoded yet
  char32_t before = 0;
  std::int32_t id_before = kNoToken;
  for (std::size_t i = 0; i < piece.size();) {
    const auto [value, num_bytes] = decode_at(piece, i);
    const auto id = characters_->id_of(value);
    if (id != kNoToken && id_before != kNoToken && !characters_->may_join(before, value)) {
      encode_part(piece.substr(begin, i - begin), out);
      begin = i;
    }
    before = value;
    id_before = id;
    i += static_cast<std::size_t>(num_bytes);
  }
  encode_part(piece.substr(begin), out);
}

void Bpe::encode_part(std::string_view part, std::vector<std::int32_t>& out) const {
  const bool cacheable = part.size() <= Cache::kMaxPieceBytes;
  if (cacheable && cache_->find(part, out)) return;
  const std::size_t start = out.size();
  encode_uncached(part, out);
  if (cacheable) cache_->insert(part, out.data() + start, out.data() + out.size());
}

void Bpe::encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    fail(ErrorKind::kUsage, "a piece of {} bytes without a place to split is more than 2^31 - 1", piece.size());
  }
  thread_local Workspace work;
  work.symbols.clear();
  if (characters_) {
    start_with_characters(piece, work);
  } else {
    start_with_bytes(piece, work);
  }
  if (work.symbols.empty()) return;
  work.symbols.back().next = -1;
  merge_all(work);
  for (const Symbol& symbol : work.symbols) {
    if (symbol.id != kNoToken) out.push_back(symbol.id);
  }
}

void Bpe::start_with_bytes(std::string_view piece, Workspace& work) const {
  // Bytes without a token are told apart by character, as `tokenizers` does: without fuse_unk each byte's printable
  // character is one unk token.
  bool after_unk = false;
  for (const char c : piece) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(c)];
    if (id != kNoToken) {
      work.add(id);
    } else if (unk_id_ && !(fuse_unk_ && after_unk)) {
      work.add(*unk_id_);
    }
    after_unk = id == kNoToken;
  }
}

void Bpe::start_with_characters(std::string_view piece, Workspace& work) const {
  // `tokenizers` writes an unk token down when the next character with a token, or the next unk token, comes. Bytes do not make it do so:
  // they come before the unk token of a character that they follow.
  bool is_unk_pending = false;
  for (std::size_t i = 0; i < piece.size();) {
    const auto [value, length] = decode_at(piece, i);
    const auto num_bytes = static_cast<std::size_t>(length);
    const auto bytes = piece.substr(i, num_bytes);
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<std::uint8_t>(c)]; };
    i += num_bytes;
    if (const auto id = characters_->id_of(value); id != kNoToken) {
      if (is_unk_pending) work.add(*unk_id_);
      is_unk_pending = false;
      work.add(id);
    } else if (std::ranges::none_of(bytes, [&](char c) { return byte_id(c) == kNoToken; })) {
      for (const char c : bytes) work.add(byte_id(c));
    } else if (unk_id_) {
      if (is_unk_pending && !fuse_unk_) work.add(*unk_id_);
      is_unk_pending = true;
    }
  }
  if (is_unk_pending) work.add(*unk_id_);
}

void Bpe::merge_all(Workspace& work) const {
  auto& [symbols, heap] = work;
  heap.clear();
  const auto at = [&symbols = symbols](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  const auto consider = [&, &heap = heap](std::int32_t left) {
    const std::int32_t right = at(left).next;
    if (const Merge* merge = find_merge(at(left).id, at(right).id)) heap.push_back({merge->rank, left, merge->id});
  };
  for (std::int32_t i = 0; at(i).next >= 0; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), comes_later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), comes_later);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = at(best.position);
    if (left.id == kNoToken || left.next < 0) continue;
    Symbol& right = at(left.next);
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;  // a neighbour has changed since
    left.id = best.id;
    left.next = right.next;
    right.id = kNoToken;
    if (left.next >= 0) at(left.next).previous = best.position;
    for (const std::int32_t pair : {left.previous, best.position}) {
      if (pair < 0 || at(pair).next < 0) continue;
      const std::size_t before = heap.size();
      consider(pair);
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), comes_later);
    }
  }
}

}  // namespace quiver::text
