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
    if (source.ignore_merges) {
      if (auto bytes = bytes_of_spelling(token)) whole_pieces_.emplace(std::move(*bytes), id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = vocabulary_.find(byte_spelling(static_cast<std::uint8_t>(byte)));
    byte_ids_[static_cast<std::size_t>(byte)] = found == vocabulary_.end() ? kNoToken : found->second;
  }
  if (source.unk_token) {
    const auto found = vocabulary_.find(*source.unk_token);
    if (found == vocabulary_.end()) {
      fail(ErrorKind::kBadFormat, "{}: unk_token '{}' is not in the vocabulary of {} tokens", origin, *source.unk_token,
           vocabulary_.size());
    }
    unk_id_ = found->second;
  }
  build_merge_table(source, origin);
}

void Bpe::build_merge_table(const BpeSource& source, const std::string& origin) {
  if (source.merges.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    fail(ErrorKind::kBadFormat, "{}: {} merges are more than 2^31 - 1", origin, source.merges.size());
  }
  merges_.resize(std::bit_ceil(2 * source.merges.size() + 1));
  const std::size_t mask = merges_.size() - 1;
  std::int32_t rank = 0;
  for (const auto& merge : source.merges) {
    const auto id_of = [&](const std::string& token) {
      const auto found = vocabulary_.find(token);
      if (found == vocabulary_.end()) {
        fail(ErrorKind::kBadFormat, "{}: merge {} ('{}' and '{}') needs the token '{}', which the vocabulary lacks", origin, rank,
             merge.first, merge.second, token);
      }
      return found->second;
    };
    const std::uint64_t key = pair_key(id_of(merge.first), id_of(merge.second));
    const std::int32_t merged = id_of(merge.first + merge.second);
    std::size_t slot = hash_pair(key) & mask;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != key) slot = (slot + 1) & mask;
    merges_[slot] = {key, rank, merged};  // of a merge that is listed twice, the last counts
    ++rank;
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
  const bool cacheable = piece.size() <= Cache::kMaxPieceBytes;
  if (cacheable && cache_->find(piece, out)) return;
  const std::size_t start = out.size();
  encode_uncached(piece, out);
  if (cacheable) cache_->insert(piece, out.data() + start, out.data() + out.size());
}

void Bpe::encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    fail(ErrorKind::kUsage, "a piece of {} bytes without a place to split is more than 2^31 - 1", piece.size());
  }
  thread_local Workspace work;
  work.symbols.clear();
  const auto add = [&](std::int32_t id) {
    const auto index = static_cast<std::int32_t>(work.symbols.size());
    work.symbols.push_back({id, index - 1, index + 1});
  };
  // Bytes without a token are told apart by character, as `tokenizers` does: without fuse_unk each byte's printable
  // character is one unk token.
  bool after_unk = false;
  for (const char c : piece) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(c)];
    if (id != kNoToken) {
      add(id);
    } else if (unk_id_ && !(fuse_unk_ && after_unk)) {
      add(*unk_id_);
    }
    after_unk = id == kNoToken;
  }
  if (work.symbols.empty()) return;
  work.symbols.back().next = -1;
  merge_all(work);
  for (const Symbol& symbol : work.symbols) {
    if (symbol.id != kNoToken) out.push_back(symbol.id);
  }
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
