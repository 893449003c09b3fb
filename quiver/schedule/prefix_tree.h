// Which tokens have rows in a cache of keys and values, so that requests that begin alike share them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quiver/schedule/pages.h"
#include "quiver/schedule/request.h"

namespace quiver::schedule {

using NodeId = std::uint64_t;
inline constexpr NodeId kNoNode = 0;

/// A run of tokens that continues the first `branch` tokens of its parent, and the rows of the cache that hold them.
struct PrefixNode {
  NodeId parent = kNoNode;  ///< kNoNode: the run begins a text
  std::int64_t branch = 0;  ///< tokens of the parent that come before
  std::int64_t depth = 0;   ///< tokens of all that come before
  std::vector<std::int32_t> tokens;
  std::vector<RowSpan> rows;
  std::int64_t computed = 0;       ///< tokens whose rows are filled
  std::int64_t planned = 0;        ///< tokens whose rows are filled once the pass at hand is done; at least `computed`
  std::vector<TokenScore> scores;  ///< of the first tokens, at most `computed`, where they are known; the first token of a text has none
};

/// A place in a tree: the first `length` tokens of a node, and all before them.
struct PrefixPlace {
  NodeId node = kNoNode;    ///< kNoNode: the beginning of all texts
  std::int64_t length = 0;  ///< of the node's tokens
  std::int64_t total = 0;   ///< tokens up to here
};

/// Trees of tokens, one for each key: rows depend on the key (Assignment::key) and on the tokens before them, and on nothing else. A node
/// holds its own pages. Requests hold nodes; a node that nobody holds stays as cache until its pages are needed. Sharing is exact to the
/// row: a node may be continued after any of its tokens, and is never cut. Not thread-safe.
class PrefixTree {
 public:
  /// The pages must outlive the tree.
  explicit PrefixTree(CachePages& pages) : pages_(&pages) {}
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /// The longest beginning of `tokens` that the key's tree has, whether its rows are filled or not. The place's node counts as used now.
  PrefixPlace find(const std::string& key, std::span<const std::int32_t> tokens);
  /// The last place on the way to `place` up to which rows are filled, or planned to be.
  PrefixPlace filled(PrefixPlace place) const;
  PrefixPlace planned(PrefixPlace place) const;

  /// A new node with these tokens at `place`, with free pages of its own, held once. The node is not to be found (find) where the tree
  /// continues so already. Throws kInternal if there are too few free pages, or without tokens.
  NodeId add(const std::string& key, PrefixPlace place, std::span<const std::int32_t> tokens);
  /// Keeps rows that are filled, of `tokens` from their beginning on, as far as the tree does not have them. Nobody holds the new node.
  void adopt(const std::string& key, std::span<const std::int32_t> tokens, const std::vector<RowSpan>& rows);

  const PrefixNode& at(NodeId node) const { return entry(node).node; }
  void set_computed(NodeId node, std::int64_t computed);
  void set_planned(NodeId node, std::int64_t planned) { entry(node).node.planned = planned; }
  /// The score of the node's next token that has none.
  void append_score(NodeId node, TokenScore score) { entry(node).node.scores.push_back(std::move(score)); }
  /// The rows of all tokens up to a place.
  std::vector<RowSpan> rows_of(PrefixPlace place) const;
  /// The nodes from the beginning to a place, each with the length that leads there.
  std::vector<PrefixPlace> path_to(PrefixPlace place) const;

  /// A held node stays, and all that come before it.
  void hold(NodeId node);
  /// A node that nobody holds and nothing continues goes away if it has no tokens or is not to be found; else it stays as cache.
  void release(NodeId node);
  /// Takes away the tokens that are not computed, which nothing continues: whoever was to compute them will not.
  void cut_to_computed(NodeId node);
  /// The node is not to be found any more.
  void unlist(NodeId node);
  /// Takes away the node that was used longest ago among those that nobody holds and nothing continues. False if there is none.
  bool evict_one();
  /// Pages of nodes that no request holds, which evict_one can take away sooner or later. A page of two nodes counts twice.
  std::int64_t num_cached_pages() const { return cached_pages_; }
  std::int64_t num_nodes() const { return static_cast<std::int64_t>(entries_.size()); }

 private:
  using Children = std::map<std::pair<std::int64_t, std::int32_t>, NodeId>;  // by branch and first token
  struct Entry {
    PrefixNode node;
    std::string key;
    std::int32_t first = -1;  // the first token
    PageLease lease;
    std::int64_t num_pages = 0;
    std::int64_t holders = 0;   // requests, and nodes that continue it
    std::int64_t requests = 0;  // below or at the node: held by requests, directly or through nodes that continue it
    bool is_listed = true;      // to be found
    std::uint64_t last_use = 0;
    Children children;  // those to be found
  };
  Entry& entry(NodeId node) { return entries_.at(node); }
  const Entry& entry(NodeId node) const { return entries_.at(node); }
  Children* children_of(const std::string& key, NodeId node);
  NodeId insert(const std::string& key, PrefixPlace place, PrefixNode node, PageLease lease);
  void use(NodeId node);
  void count_request(NodeId node, std::int64_t change);
  void erase(NodeId node);

  CachePages* pages_;
  std::unordered_map<NodeId, Entry> entries_;
  std::map<std::string, Children> roots_;            // by key
  std::set<std::pair<std::uint64_t, NodeId>> idle_;  // by last use: held by nobody, continued by nothing
  std::int64_t cached_pages_ = 0;
  NodeId next_ = 1;
  std::uint64_t clock_ = 0;
};

}  // namespace quiver::schedule
