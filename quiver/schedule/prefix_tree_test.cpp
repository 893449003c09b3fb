#include "quiver/schedule/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/testing/message_of.h"

namespace quiver::schedule {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Tokens = std::vector<std::int32_t>;

NodeId add_filled(PrefixTree& tree, const std::string& key, PrefixPlace place, const Tokens& tokens) {
  const auto node = tree.add(key, place, tokens);
  tree.set_computed(node, std::ssize(tokens));
  return node;
}

PrefixPlace find(PrefixTree& tree, const std::string& key, const Tokens& tokens) { return tree.find(key, tokens); }

TEST(PrefixTree, FindsTheLongestBeginningWithinAKey) {
  CachePages pages(64, 4);
  PrefixTree tree(pages);
  EXPECT_EQ(find(tree, "base", {1, 2}).total, 0);
  const auto first = add_filled(tree, "base", {}, {1, 2, 3, 4, 5, 6});
  const auto place = find(tree, "base", {1, 2, 3, 9, 9});
  EXPECT_EQ(place.node, first);
  EXPECT_EQ(place.length, 3);
  EXPECT_EQ(place.total, 3);
  const auto branch = add_filled(tree, "base", place, Tokens{9, 8});
  EXPECT_EQ(tree.at(branch).parent, first);
  EXPECT_EQ(tree.at(branch).branch, 3);
  EXPECT_EQ(tree.at(branch).depth, 3);
  const auto deep = find(tree, "base", {1, 2, 3, 9, 8, 7});
  EXPECT_EQ(deep.node, branch);
  EXPECT_EQ(deep.length, 2);
  EXPECT_EQ(deep.total, 5);
  EXPECT_EQ(find(tree, "base", {1, 2, 3, 4, 5, 6, 7}).total, 6);
  EXPECT_EQ(find(tree, "arrow", {1, 2, 3}).total, 0);
  EXPECT_EQ(find(tree, "base", {2, 3}).total, 0);
  EXPECT_EQ(find(tree, "base", {}).total, 0);
}

TEST(PrefixTree, TheRowsOfAPlaceAreThoseOfItsPath) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto first = add_filled(tree, "k", {}, {1, 2, 3, 4, 5});     // rows 0 to 4, of pages 0 and 1
  const auto second = add_filled(tree, "k", {first, 3, 3}, {7, 8});  // rows 8 and 9
  const auto third = tree.add("k", {second, 1, 4}, Tokens{6});       // row 12
  EXPECT_THAT(tree.rows_of({third, 1, 5}), ElementsAre(RowSpan{0, 3}, RowSpan{8, 1}, RowSpan{12, 1}));
  EXPECT_THAT(tree.rows_of({first, 5, 5}), ElementsAre(RowSpan{0, 5}));
  EXPECT_THAT(tree.rows_of({}), IsEmpty());
  EXPECT_EQ(pages.num_free(), 4);
  std::vector<std::int64_t> lengths;
  for (const auto& step : tree.path_to({third, 1, 5})) lengths.push_back(step.length);
  EXPECT_THAT(lengths, ElementsAre(3, 1, 1));
}

TEST(PrefixTree, ToldApartAreRowsThatAreFilledAndRowsThatWillBe) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto first = tree.add("k", {}, Tokens{1, 2, 3, 4});
  const auto second = tree.add("k", {first, 4, 4}, Tokens{5, 6, 7});
  const PrefixPlace end{second, 3, 7};
  EXPECT_EQ(tree.filled(end).total, 0);
  tree.set_computed(first, 2);
  tree.set_planned(first, 4);
  tree.set_planned(second, 1);
  EXPECT_EQ(tree.filled(end).total, 2);
  EXPECT_EQ(tree.filled(end).node, first);
  EXPECT_EQ(tree.planned(end).total, 5);
  EXPECT_EQ(tree.planned(end).node, second);
  tree.set_computed(second, 3);  // nobody reads beyond the gap
  EXPECT_EQ(tree.filled(end).total, 2);
  tree.set_computed(first, 4);
  EXPECT_EQ(tree.filled(end).total, 7);
  EXPECT_EQ(tree.at(second).planned, 3);
}

TEST(PrefixTree, WhatNobodyHoldsStaysAndGoesByAge) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto a = add_filled(tree, "k", {}, {1, 1, 1, 1, 1});
  const auto b = add_filled(tree, "k", {}, {2, 2});
  const auto child = add_filled(tree, "k", {a, 5, 5}, {3});
  EXPECT_EQ(tree.num_cached_pages(), 0);
  EXPECT_FALSE(tree.evict_one());
  tree.release(a);
  EXPECT_EQ(tree.num_cached_pages(), 0) << "its child is held";
  EXPECT_FALSE(tree.evict_one());
  tree.release(b);
  EXPECT_EQ(tree.num_cached_pages(), 1);
  tree.release(child);
  EXPECT_EQ(tree.num_cached_pages(), 4);
  find(tree, "k", {2});  // used now
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(find(tree, "k", {1, 1, 1, 1, 1, 3}).total, 5) << "the child went before its parent";
  find(tree, "k", {2});
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(find(tree, "k", {1}).total, 0);
  EXPECT_EQ(find(tree, "k", {2, 2}).total, 2);
  EXPECT_TRUE(tree.evict_one());
  EXPECT_FALSE(tree.evict_one());
  EXPECT_EQ(tree.num_nodes(), 0);
  EXPECT_EQ(pages.num_free(), 8);
}

TEST(PrefixTree, ATwinOfAnotherNodeIsNotFoundAndGoesWithItsRequest) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto first = add_filled(tree, "k", {}, {1, 2});
  const auto twin = add_filled(tree, "k", {}, {1, 2, 3});
  EXPECT_EQ(find(tree, "k", {1, 2, 3}).node, first);
  EXPECT_EQ(find(tree, "k", {1, 2, 3}).total, 2);
  EXPECT_EQ(tree.num_nodes(), 2);
  tree.release(twin);
  EXPECT_EQ(tree.num_nodes(), 1);
  const auto inside = add_filled(tree, "k", {first, 1, 1}, {2, 4});  // the node goes on so itself
  EXPECT_EQ(find(tree, "k", {1, 2, 4}).total, 2);
  tree.release(inside);
  EXPECT_EQ(tree.num_nodes(), 1);
  EXPECT_EQ(pages.num_free(), 7);
}

TEST(PrefixTree, CutsOffWhatIsNotComputed) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto node = tree.add("k", {}, Tokens{1, 2, 3, 4, 5, 6});
  tree.set_computed(node, 3);
  tree.set_planned(node, 6);
  tree.cut_to_computed(node);
  EXPECT_EQ(tree.at(node).planned, 3);
  EXPECT_THAT(tree.at(node).tokens, ElementsAre(1, 2, 3));
  EXPECT_EQ(pages.num_free(), 7);
  EXPECT_EQ(find(tree, "k", {1, 2, 3, 4}).total, 3);
  const auto empty = tree.add("k", {}, Tokens{9});
  tree.cut_to_computed(empty);
  tree.release(empty);
  EXPECT_EQ(tree.num_nodes(), 1);
  tree.release(node);
  EXPECT_EQ(tree.num_cached_pages(), 1);
}

TEST(PrefixTree, AdoptsRowsThatItDoesNotHave) {
  CachePages pages(32, 4);
  PrefixTree tree(pages);
  const auto node = add_filled(tree, "k", {}, {1, 2, 3});
  std::vector<RowSpan> rows = tree.rows_of({node, 3, 3});
  auto lease = std::optional(pages.take(2, rows));
  tree.adopt("k", Tokens{1, 2, 3, 4, 5}, rows);
  EXPECT_EQ(find(tree, "k", {1, 2, 3, 4, 5, 6}).total, 5);
  EXPECT_EQ(tree.rows_of(find(tree, "k", {1, 2, 3, 4, 5})), rows);
  EXPECT_EQ(tree.num_cached_pages(), 1);
  tree.adopt("k", Tokens{1, 2, 3, 4, 5}, rows);
  EXPECT_EQ(tree.num_nodes(), 2);
  lease.reset();
  EXPECT_EQ(pages.num_free(), 6) << "the tree holds the page now";
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(pages.num_free(), 7);
}

TEST(PrefixTree, RefusesNodesWithoutTokensOrPages) {
  CachePages pages(8, 4);
  PrefixTree tree(pages);
  EXPECT_ERROR(tree.add("k", {}, Tokens{}), ErrorKind::kInternal, "without tokens");
  EXPECT_ERROR(tree.add("k", {}, Tokens(9, 1)), ErrorKind::kInternal, "");
  EXPECT_EQ(tree.num_nodes(), 0);
}

/// The definition: every node as the whole list of tokens that it ends, with all rows and whether each is filled.
class Twin {
 public:
  struct Node {
    std::string key;
    NodeId parent = kNoNode;
    Tokens tokens;                   // from the beginning of the text
    std::vector<std::int64_t> rows;  // of the same
    std::int64_t own = 0;            // the last so many are the node's
    std::int64_t computed = 0;       // of the own
    std::int64_t num_pages = 0;
    std::int64_t holds = 0;
    bool is_listed = true;
    std::uint64_t last_use = 0;
  };
  std::map<NodeId, Node> nodes;
  std::uint64_t clock = 0;

  bool is_found(NodeId id) const { return id == kNoNode || (nodes.at(id).is_listed && is_found(nodes.at(id).parent)); }
  bool is_continued(NodeId id) const {
    return std::ranges::any_of(nodes, [&](const auto& one) { return one.second.parent == id; });
  }
  bool is_needed(NodeId id) const {
    if (nodes.at(id).holds > 0) return true;
    return std::ranges::any_of(nodes, [&](const auto& one) { return one.second.parent == id && is_needed(one.first); });
  }
  std::int64_t longest(const std::string& key, const Tokens& tokens) const {
    std::int64_t most = 0;
    for (const auto& [id, node] : nodes) {
      if (node.key != key || !is_found(id)) continue;
      most = std::max<std::int64_t>(most, std::ranges::mismatch(node.tokens, tokens).in1 - node.tokens.begin());
    }
    return most;
  }
  /// Filled tokens from the beginning on.
  std::int64_t filled(NodeId id, std::int64_t total) const {
    if (id == kNoNode) return 0;
    const auto& node = nodes.at(id);
    const auto before = std::ssize(node.tokens) - node.own;
    const auto reached = filled(node.parent, before);
    return reached < before ? reached : std::min(total, before + node.computed);
  }
  std::int64_t cached_pages() const {
    std::int64_t sum = 0;
    for (const auto& [id, node] : nodes) sum += is_needed(id) ? 0 : node.num_pages;
    return sum;
  }
  std::optional<NodeId> oldest() const {
    std::optional<NodeId> best;
    for (const auto& [id, node] : nodes) {
      if (node.holds > 0 || is_continued(id) || (best && node.last_use >= nodes.at(*best).last_use)) continue;
      best = id;
    }
    return best;
  }
  /// The node goes, and those before it that are nobody's and not to be found.
  void erase(NodeId id) {
    const auto parent = nodes.at(id).parent;
    nodes.erase(id);
    if (parent != kNoNode && nodes.at(parent).holds == 0 && !is_continued(parent) && !nodes.at(parent).is_listed) erase(parent);
  }
};

std::vector<std::int64_t> each_row(const std::vector<RowSpan>& spans) {
  std::vector<std::int64_t> rows;
  for (const auto& run : spans) {
    for (std::int64_t i = 0; i < run.length; ++i) rows.push_back(run.first + i);
  }
  return rows;
}

/// A tree and its twin under the same random operations.
class Pair {
 public:
  explicit Pair(std::uint64_t seed)
      : random_(seed, "prefix tree"),
        pages_(static_cast<std::int64_t>(20 + random_.below(60)), static_cast<std::int64_t>(1 + random_.below(4))),
        tree_(pages_) {}

  void operate() {
    const auto key = random_.below(4) == 0 ? "b" : "a";
    switch (random_.below(6)) {
      case 0: look(key, draw_tokens()); break;
      case 1: add(key); break;
      case 2: compute(); break;
      case 3: let_go(); break;
      case 4: hold_or_unhold(); break;
      default:
        if (random_.below(3) == 0) evict();
    }
    EXPECT_EQ(tree_.num_nodes(), std::ssize(twin_.nodes));
    EXPECT_EQ(tree_.num_cached_pages(), twin_.cached_pages());
  }
  void end() {
    for (auto& [id, holds] : extra_) {
      for (; holds > 0; --holds) release(id);
    }
    while (!owned_.empty()) let_go();
    while (evict()) continue;
    EXPECT_EQ(tree_.num_nodes(), 0);
    EXPECT_EQ(tree_.num_cached_pages(), 0);
    EXPECT_EQ(pages_.num_free(), pages_.num_pages());
  }
  std::int64_t num_shared = 0, num_hidden = 0, num_adopted = 0, num_evicted = 0;

 private:
  Tokens draw_tokens() {
    Tokens tokens(1 + random_.below(10));
    for (auto& token : tokens) token = static_cast<std::int32_t>(random_.below(3));
    return tokens;
  }
  NodeId pick(const std::vector<NodeId>& ids) { return ids[random_.below(ids.size())]; }

  PrefixPlace look(const std::string& key, const Tokens& tokens) {
    const auto place = tree_.find(key, tokens);
    EXPECT_EQ(place.total, twin_.longest(key, tokens));
    if (place.node == kNoNode) return place;
    auto& node = twin_.nodes.at(place.node);
    node.last_use = ++twin_.clock;
    const auto total = static_cast<std::size_t>(place.total);
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.begin() + place.total, node.tokens.begin()));
    EXPECT_EQ(each_row(tree_.rows_of(place)), (std::vector(node.rows.begin(), node.rows.begin() + static_cast<std::ptrdiff_t>(total))));
    EXPECT_EQ(tree_.filled(place).total, twin_.filled(place.node, place.total));
    return place;
  }

  void add(const std::string& key) {
    const auto tokens = draw_tokens();
    const auto place = look(key, tokens);
    if (place.total == std::ssize(tokens)) return;
    const auto rest = std::span(tokens).subspan(static_cast<std::size_t>(place.total));
    while (pages_.num_free() < pages_.pages_for(std::ssize(rest))) {
      // The place itself may go: hold it, as a scheduler does.
      if (place.node != kNoNode) hold(place.node);
      const bool has_gone = evict();
      if (place.node != kNoNode) release(place.node);
      if (!has_gone) return;
    }
    insert(key, place, tokens, rest);
    // Sometimes the same again, for a request that does not share.
    if (random_.below(5) == 0 && pages_.num_free() >= pages_.pages_for(std::ssize(tokens))) insert(key, {}, tokens, tokens);
  }

  void insert(const std::string& key, PrefixPlace place, const Tokens& tokens, std::span<const std::int32_t> rest) {
    const bool is_twin = place.node == kNoNode ? twin_.longest(key, {rest[0]}) > 0 : false;
    const auto id = tree_.add(key, place, rest);
    Twin::Node node{.key = key, .parent = place.node, .tokens = tokens, .own = std::ssize(rest)};
    if (place.node != kNoNode) {
      const auto& rows = twin_.nodes.at(place.node).rows;
      node.rows.assign(rows.begin(), rows.begin() + place.total);
      ++num_shared;
    }
    const auto own = each_row(tree_.at(id).rows);
    EXPECT_EQ(std::ssize(own), std::ssize(rest));
    for (const auto& [other_id, other] : twin_.nodes) {
      const auto first = other.rows.end() - other.own;
      for (const auto row : own) EXPECT_EQ(std::find(first, other.rows.end(), row), other.rows.end()) << "a row of two nodes";
    }
    node.rows.insert(node.rows.end(), own.begin(), own.end());
    node.holds = 1;
    node.num_pages = pages_.pages_for(std::ssize(rest));
    node.is_listed = !is_twin;
    num_hidden += is_twin ? 1 : 0;
    node.last_use = ++twin_.clock;
    twin_.nodes.emplace(id, std::move(node));
    owned_.push_back(id);
  }

  void compute() {
    if (owned_.empty()) return;
    const auto id = pick(owned_);
    auto& node = twin_.nodes.at(id);
    node.computed += static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(node.own - node.computed) + 1));
    tree_.set_computed(id, node.computed);
  }

  /// A request ends, as Scheduler::leave has it.
  void let_go() {
    if (owned_.empty()) return;
    const auto id = pick(owned_);
    std::erase(owned_, id);
    auto& node = twin_.nodes.at(id);
    if (!twin_.is_continued(id) && node.holds == 1) {
      tree_.cut_to_computed(id);
      const auto cut = static_cast<std::size_t>(node.own - node.computed);
      node.tokens.resize(node.tokens.size() - cut);
      node.rows.resize(node.rows.size() - cut);
      node.own = node.computed;
      std::set<std::int64_t> used;
      for (auto row = node.rows.end() - node.own; row != node.rows.end(); ++row) used.insert(*row / pages_.page_rows());
      node.num_pages = std::ssize(used);
      if (random_.below(4) == 0) {
        tree_.unlist(id);
        node.is_listed = false;
      }
      if (node.own > 0 && twin_.filled(id, std::ssize(node.tokens)) == std::ssize(node.tokens)) adopt(id);
    }
    release(id);
  }

  void adopt(NodeId id) {
    const auto node = twin_.nodes.at(id);
    const auto before = look(node.key, node.tokens);
    tree_.adopt(node.key, node.tokens, tree_.rows_of({id, node.own, std::ssize(node.tokens)}));
    const auto after = tree_.find(node.key, node.tokens);
    if (before.node != kNoNode) twin_.nodes.at(before.node).last_use = ++twin_.clock;  // adopt looks, too
    const auto length = std::ssize(node.tokens);
    const bool is_whole = before.total == length || twin_.filled(before.node, before.total) < before.total;
    EXPECT_EQ(after.total, is_whole ? before.total : length);
    if (!is_whole) {
      Twin::Node made{.key = node.key, .parent = before.node, .tokens = node.tokens, .own = length - before.total};
      made.computed = made.own;
      if (before.node != kNoNode) {
        const auto& rows = twin_.nodes.at(before.node).rows;
        made.rows.assign(rows.begin(), rows.begin() + before.total);
      }
      made.rows.insert(made.rows.end(), node.rows.begin() + before.total, node.rows.end());
      std::set<std::int64_t> used;
      for (auto row = made.rows.end() - made.own; row != made.rows.end(); ++row) used.insert(*row / pages_.page_rows());
      made.num_pages = std::ssize(used);
      made.last_use = ++twin_.clock;
      twin_.nodes.emplace(after.node, made);
      ++num_adopted;
    }
    if (after.node != kNoNode) twin_.nodes.at(after.node).last_use = ++twin_.clock;
  }

  void hold_or_unhold() {
    if (twin_.nodes.empty()) return;
    if (random_.below(2) == 0) {
      std::vector<NodeId> all;
      for (const auto& [id, node] : twin_.nodes) all.push_back(id);
      const auto id = pick(all);
      hold(id);
      ++extra_[id];
      return;
    }
    const auto found = std::ranges::find_if(extra_, [](const auto& one) { return one.second > 0; });
    if (found == extra_.end()) return;
    --found->second;
    release(found->first);
  }
  void hold(NodeId id) {
    tree_.hold(id);
    ++twin_.nodes.at(id).holds;
  }
  void release(NodeId id) {
    tree_.release(id);
    auto& node = twin_.nodes.at(id);
    node.last_use = ++twin_.clock;
    if (--node.holds > 0 || twin_.is_continued(id)) return;
    if (node.own == 0 || !node.is_listed) twin_.erase(id);
  }
  bool evict() {
    const auto oldest = twin_.oldest();
    const bool has_gone = tree_.evict_one();
    EXPECT_EQ(has_gone, oldest.has_value());
    if (oldest) twin_.erase(*oldest);
    num_evicted += has_gone ? 1 : 0;
    return has_gone;
  }

  RandomStream random_;
  CachePages pages_;
  PrefixTree tree_;
  Twin twin_;
  std::vector<NodeId> owned_;             // held by a request that computes them
  std::map<NodeId, std::int64_t> extra_;  // holds beside
};

TEST(PrefixTree, AgreesWithItsTwinUnderRandomOperations) {
  std::int64_t num_shared = 0, num_hidden = 0, num_adopted = 0, num_evicted = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    Pair pair(seed);
    for (int i = 0; i < 300 && !::testing::Test::HasFailure(); ++i) pair.operate();
    if (::testing::Test::HasFailure()) return;
    pair.end();
    num_shared += pair.num_shared;
    num_hidden += pair.num_hidden;
    num_adopted += pair.num_adopted;
    num_evicted += pair.num_evicted;
  }
  EXPECT_GT(num_shared, 100);
  EXPECT_GT(num_hidden, 100);
  EXPECT_GT(num_adopted, 20);
  EXPECT_GT(num_evicted, 100);
}

}  // namespace
}  // namespace quiver::schedule
