#include "quiver/schedule/prefix_tree.h"

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::schedule {
namespace {

std::int64_t count(std::span<const std::int32_t> tokens) { return static_cast<std::int64_t>(tokens.size()); }

std::int64_t common_length(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  const auto [end, other] = std::ranges::mismatch(a, b);
  return end - a.begin();
}

}  // namespace

PrefixTree::Children* PrefixTree::children_of(const std::string& key, NodeId node) {
  if (node != kNoNode) return &entry(node).children;
  const auto found = roots_.find(key);
  return found == roots_.end() ? nullptr : &found->second;
}

PrefixPlace PrefixTree::find(const std::string& key, std::span<const std::int32_t> tokens) {
  PrefixPlace place;
  while (place.total < count(tokens)) {
    const auto* children = children_of(key, place.node);
    if (children == nullptr) break;
    const auto rest = tokens.subspan(static_cast<std::size_t>(place.total));
    const auto next = children->find({place.length, rest.front()});
    if (next == children->end()) break;
    const auto length = common_length(entry(next->second).node.tokens, rest);
    place = {next->second, length, place.total + length};
  }
  if (place.node != kNoNode) use(place.node);
  return place;
}

std::vector<PrefixPlace> PrefixTree::path_to(PrefixPlace place) const {
  std::vector<PrefixPlace> path;
  while (place.node != kNoNode) {
    path.push_back(place);
    const auto& node = at(place.node);
    place = {node.parent, node.branch, node.depth};
  }
  std::ranges::reverse(path);
  return path;
}

namespace {

/// The last place of a path before which `limit` of every node has been reached.
template <typename Limit>
PrefixPlace up_to(const std::vector<PrefixPlace>& path, Limit limit) {
  PrefixPlace last;
  for (const auto& step : path) {
    const auto length = std::min(step.length, limit(step.node));
    last = {step.node, length, step.total - step.length + length};
    if (length < step.length) break;
  }
  return last;
}

}  // namespace

PrefixPlace PrefixTree::filled(PrefixPlace place) const {
  return up_to(path_to(place), [&](NodeId node) { return at(node).computed; });
}

PrefixPlace PrefixTree::planned(PrefixPlace place) const {
  return up_to(path_to(place), [&](NodeId node) { return at(node).planned; });
}

NodeId PrefixTree::insert(const std::string& key, PrefixPlace place, PrefixNode node, PageLease lease) {
  node.parent = place.node;
  node.branch = place.length;
  node.depth = place.total;
  const auto first = node.tokens.front();
  const auto id = next_++;
  const bool goes_on = place.node != kNoNode && place.length < count(at(place.node).tokens) &&
                       at(place.node).tokens[static_cast<std::size_t>(place.length)] == first;
  Entry e{.node = std::move(node), .key = key, .first = first, .lease = std::move(lease)};
  e.num_pages = e.lease.num_pages();
  cached_pages_ += e.num_pages;
  e.last_use = ++clock_;
  e.is_listed =
      !goes_on && (place.node != kNoNode ? entry(place.node).children : roots_[key]).try_emplace({place.length, first}, id).second;
  entries_.emplace(id, std::move(e));
  if (place.node != kNoNode) {
    auto& parent = entry(place.node);
    if (parent.holders++ == 0) idle_.erase({parent.last_use, place.node});
  }
  return id;
}

NodeId PrefixTree::add(const std::string& key, PrefixPlace place, std::span<const std::int32_t> tokens) {
  if (tokens.empty()) fail(ErrorKind::kInternal, "a node of a prefix tree without tokens");
  PrefixNode node{.tokens = {tokens.begin(), tokens.end()}};
  auto lease = pages_->take(count(tokens), node.rows);
  const auto id = insert(key, place, std::move(node), std::move(lease));
  entry(id).holders = 1;
  count_request(id, 1);
  return id;
}

void PrefixTree::adopt(const std::string& key, std::span<const std::int32_t> tokens, const std::vector<RowSpan>& rows) {
  const auto place = find(key, tokens);
  if (place.total == count(tokens) || filled(place).total < place.total) return;  // else somebody is computing them just now
  const auto rest = tokens.subspan(static_cast<std::size_t>(place.total));
  PrefixNode node{.tokens = {rest.begin(), rest.end()}, .rows = part_of_rows(rows, place.total, count(rest))};
  node.computed = node.planned = count(rest);
  auto lease = pages_->share(node.rows);
  const auto id = insert(key, place, std::move(node), std::move(lease));
  idle_.emplace(entry(id).last_use, id);
}

void PrefixTree::set_computed(NodeId node, std::int64_t computed) {
  auto& n = entry(node).node;
  n.computed = computed;
  n.planned = std::max(n.planned, computed);
}

std::vector<RowSpan> PrefixTree::rows_of(PrefixPlace place) const {
  std::vector<RowSpan> rows;
  for (const auto& step : path_to(place)) {
    for (const auto& run : part_of_rows(at(step.node).rows, 0, step.length)) append_rows(rows, run);
  }
  return rows;
}

void PrefixTree::use(NodeId node) {
  auto& e = entry(node);
  const bool is_idle = idle_.erase({e.last_use, node}) > 0;
  e.last_use = ++clock_;
  if (is_idle) idle_.emplace(e.last_use, node);
}

/// Of a node and all before it: pages of nodes that no request needs are cached ones.
void PrefixTree::count_request(NodeId node, std::int64_t change) {
  for (; node != kNoNode; node = entry(node).node.parent) {
    auto& e = entry(node);
    const bool was_needed = e.requests > 0;
    e.requests += change;
    if (was_needed != (e.requests > 0)) cached_pages_ += was_needed ? e.num_pages : -e.num_pages;
  }
}

void PrefixTree::hold(NodeId node) {
  auto& e = entry(node);
  if (e.holders++ == 0) idle_.erase({e.last_use, node});
  count_request(node, 1);
}

void PrefixTree::release(NodeId node) {
  count_request(node, -1);
  auto& e = entry(node);
  e.last_use = ++clock_;  // a held node is not idle
  if (--e.holders > 0) return;
  if (e.node.tokens.empty() || !e.is_listed) return erase(node);
  idle_.emplace(e.last_use, node);
}

void PrefixTree::cut_to_computed(NodeId node) {
  auto& e = entry(node);
  auto& n = e.node;
  n.planned = n.computed;
  if (n.computed == count(n.tokens)) return;
  n.tokens.resize(static_cast<std::size_t>(n.computed));
  n.rows = part_of_rows(n.rows, 0, n.computed);
  e.lease = pages_->share(n.rows);
  const auto num_pages = e.lease.num_pages();
  if (e.requests == 0) cached_pages_ += num_pages - e.num_pages;
  e.num_pages = num_pages;
}

void PrefixTree::unlist(NodeId node) {
  auto& e = entry(node);
  if (!e.is_listed) return;
  e.is_listed = false;
  auto* siblings = children_of(e.key, e.node.parent);
  siblings->erase({e.node.branch, e.first});
  if (e.node.parent == kNoNode && siblings->empty()) roots_.erase(e.key);
}

bool PrefixTree::evict_one() {
  if (idle_.empty()) return false;
  erase(idle_.begin()->second);
  return true;
}

/// A node that nobody holds.
void PrefixTree::erase(NodeId node) {
  auto& e = entry(node);
  const auto parent = e.node.parent;
  idle_.erase({e.last_use, node});
  cached_pages_ -= e.num_pages;
  unlist(node);
  entries_.erase(node);
  if (parent == kNoNode) return;
  auto& p = entry(parent);
  if (--p.holders > 0) return;
  if (p.is_listed)
    idle_.emplace(p.last_use, parent);
  else
    erase(parent);
}

}  // namespace quiver::schedule
