// The one batch type: a forest of token segments. A root segment is a prompt prefix, a child continues its parent;
// a token sees its own segment causally and all of its ancestors, and its position is its depth in tokens. Training
// batches, multiple-choice questions, few-shot prompts and plain packing are all forests (docs/architecture.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quiver::forest {

inline constexpr std::int64_t kNoParent = -1;

/// A run of tokens that continues `parent`. Its rows are [first_row, first_row + length).
struct Segment {
  std::int64_t parent = kNoParent;  ///< index of a segment before this one, or kNoParent
  std::int64_t first_row = 0;
  std::int64_t length = 0;  ///< may be 0
  std::int64_t depth = 0;   ///< position of the first token: the number of tokens of all ancestors
  std::int64_t tree = 0;    ///< which root this segment descends from, counting roots
  std::int32_t group = 0;   ///< that of its tree
};

/// Segments in depth-first order, so that the rows of a tree are contiguous and parents come before children.
/// A value type; not thread-safe while it is being built.
class TokenForest {
 public:
  /// Appends a segment and returns its index. `parent` is kNoParent or a segment of the tree that was begun last.
  /// Throws kUsage otherwise. `group` is that of a root; a child is of its parent's.
  std::int64_t add_segment(std::int64_t parent, std::span<const std::int32_t> tokens, std::int32_t group = 0);

  std::int64_t num_rows() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t num_trees() const { return num_trees_; }
  std::span<const std::int32_t> tokens() const { return tokens_; }        ///< [T]
  std::span<const std::int64_t> positions() const { return positions_; }  ///< [T]
  std::span<const Segment> segments() const { return segments_; }
  /// The ancestors of a segment, root first, without itself.
  std::vector<std::int64_t> ancestors(std::int64_t segment) const;

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<std::int64_t> positions_;
  std::vector<Segment> segments_;
  std::int64_t num_trees_ = 0;
};

/// The tokens [begin, end) of a sequence.
struct TokenSpan {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool operator==(const TokenSpan&) const = default;
};

/// A token sequence of which the last `num_targets` tokens are to be predicted, but those in `gaps`. The first token is never predicted.
struct Sequence {
  std::vector<std::int32_t> tokens;
  std::int64_t num_targets = 0;
  /// What its rows have in common beyond tokens: which adapters serve them, say. Prefixes are shared within a group alone.
  std::int32_t group = 0;
  /// Among the last num_targets tokens, those that are context after all: a user's turns between an assistant's. Ascending, disjoint.
  std::vector<TokenSpan> gaps = {};
  /// The row of a file that it comes from (data::Example::where), for messages; may be empty.
  std::string name = {};
};

/// The name of a sequence, or "sequence 3" if it has none and stands at index 3.
std::string name_of(const Sequence& sequence, std::size_t index);

/// Tokens to predict: num_targets less the gaps.
std::int64_t count_targets(const Sequence& sequence);

/// One token to predict: the logits of `row` should favour `token`. The row of a child's first token is the last row
/// of its parent's path, so a row may have several targets.
struct Target {
  std::int64_t row = 0;
  std::int32_t token = 0;
  std::int64_t sequence = 0;
};

/// A forest that holds given sequences, and where to find them in it.
struct ForestBatch {
  TokenForest forest;
  std::vector<Target> targets;          ///< sequence by sequence, in token order
  std::vector<std::int64_t> last_rows;  ///< per sequence: the row of its last token that has one
  std::vector<std::int64_t> leaves;     ///< per sequence: the segment it ends in
  std::int64_t num_tokens = 0;          ///< tokens of the sequences, shared ones counted as often as they occur
};

struct BatchOptions {
  bool share_prefixes = true;
  /// Shorter common runs are computed again: a segment costs more than the few rows it saves.
  std::int64_t min_shared_tokens = 4;
  /// A sequence's last token predicts nothing in training and scoring, so it needs no row. Generation keeps it.
  bool keep_last_token = false;
};

/// Lays `sequences` out as a forest in which common prefixes are computed once. Exact: every sequence sees the tokens
/// it would see alone, at the same positions. The split is found on token ids.
/// Throws kUsage for an empty sequence or more targets than tokens - 1.
ForestBatch build_batch(std::span<const Sequence> sequences, const BatchOptions& options = {});

}  // namespace quiver::forest
