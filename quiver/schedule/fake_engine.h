// An engine for tests whose logits are hashes of all that they may depend on: the assignment and the tokens up to the row. A row of the
// cache that is another request's, stale or out of order shows as another token.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "quiver/schedule/engine.h"

namespace quiver::schedule {

struct FakeOptions {
  std::int64_t vocab_size = 40;
  std::int64_t context_length = 64;
  std::int64_t num_cache_rows = 256;
  std::int64_t num_layers = 2, num_adapters = 2;  ///< of routes
};

class FakeEngine : public Engine {
 public:
  explicit FakeEngine(const FakeOptions& options = {}) : options_(options), rows_(static_cast<std::size_t>(options.num_cache_rows)) {}

  std::int64_t vocab_size() const override { return options_.vocab_size; }
  std::int64_t context_length() const override { return options_.context_length; }
  std::int64_t num_cache_rows() const override { return options_.num_cache_rows; }
  AssignmentPtr decide(const AssignmentPtr& assignment, std::span<const std::int32_t> prompt) override {
    return on_decide ? on_decide(assignment, prompt) : assignment;
  }

  std::vector<RowResult> compute(std::span<const Segment> segments, std::span<const Query> queries) override {
    if (on_compute) on_compute();
    if (on_segments) on_segments(segments);
    for (const auto& segment : segments) write(segment);
    states_.clear();
    first_state_.clear();
    for (const auto& segment : segments) {
      first_state_.push_back(states_.size());
      append_states(segment);
    }
    logits_.resize(queries.size());
    std::vector<RowResult> results;
    results.reserve(queries.size());
    for (std::size_t i = 0; i < queries.size(); ++i) {
      const auto& query = queries[i];
      const auto state = states_[first_state_[static_cast<std::size_t>(query.segment)] + static_cast<std::size_t>(query.row)];
      if (is_greedy(query)) {
        results.push_back({.largest = largest_of(state)});
      } else {
        logits_[i] = logits_of(state);
        results.push_back(answer(query, logits_[i]));
      }
      if (query.wants_route) results.back().route = route_of(state);
    }
    return results;
  }

  /// What a row's logits follow from.
  static std::uint64_t begin_state(const std::string& key) { return std::hash<std::string>()(key); }
  static std::uint64_t next_state(std::uint64_t state, std::int32_t token) {
    state = (state ^ static_cast<std::uint64_t>(token)) * 0x9e3779b97f4a7c15u;
    state = (state ^ (state >> 29)) * 0xbf58476d1ce4e5b9u;
    return state ^ (state >> 32);
  }
  static float logit_of(std::uint64_t state, std::int64_t token) {
    return static_cast<float>(next_state(state, static_cast<std::int32_t>(token)) % 4096) / 512;
  }
  std::vector<float> logits_of(std::uint64_t state) const {
    std::vector<float> logits;
    for (std::int64_t v = 0; v < options_.vocab_size; ++v) logits.push_back(logit_of(state, v));
    return logits;
  }
  /// The token of the largest of logits_of, without a list of them: ThreadSanitizer looks at every element of a list.
  std::int32_t largest_of(std::uint64_t state) const {
    std::int64_t largest = 0;
    for (std::int64_t v = 1; v < options_.vocab_size; ++v) {
      if (logit_of(state, v) > logit_of(state, largest)) largest = v;
    }
    return static_cast<std::int32_t>(largest);
  }
  std::vector<LayerRoute> route_of(std::uint64_t state) const {
    std::vector<LayerRoute> route;
    for (std::int64_t layer = 0; layer < options_.num_layers; ++layer) {
      const auto drawn = next_state(state, static_cast<std::int32_t>(-1 - layer));
      route.push_back({static_cast<std::int32_t>(drawn % static_cast<std::uint64_t>(options_.num_adapters)),
                       static_cast<float>(drawn / 1000 % 256) / 255});
    }
    return route;
  }
  static RowResult answer(const Query& query, std::span<const float> logits) {
    RowResult result{.largest = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    double sum = 0;
    for (const auto z : logits) sum += std::exp(static_cast<double>(z));
    result.log_sum_exp = std::log(sum);
    const auto log_prob = [&](std::int32_t token) {
      return static_cast<double>(logits[static_cast<std::size_t>(token)]) - result.log_sum_exp;
    };
    if (query.target >= 0) result.score = {query.target, log_prob(query.target), {}};
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    if (query.top > 0) std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return log_prob(a) > log_prob(b); });
    for (std::int64_t i = 0; i < query.top; ++i)
      result.score.top.emplace_back(order[static_cast<std::size_t>(i)], log_prob(order[static_cast<std::size_t>(i)]));
    if (query.wants_logits) result.logits = logits;
    return result;
  }

  std::function<void()> on_compute;  ///< may throw
  std::function<void(std::span<const Segment>)> on_segments;
  std::function<AssignmentPtr(const AssignmentPtr&, std::span<const std::int32_t>)> on_decide;

 private:
  /// What a row of the cache holds, in one word: 32 bits of begin_state, 16 of the position from 1 on, 16 of the token.
  static std::uint64_t row_of(std::uint64_t begin, std::int64_t position, std::int32_t token) {
    return begin << 32u | static_cast<std::uint64_t>(position + 1) << 16u | static_cast<std::uint64_t>(token);
  }

  static bool is_greedy(const Query& query) { return query.target < 0 && query.top < 0 && !query.wants_logits; }

  void write(const Segment& segment) {
    const auto begin = begin_state(segment.assignment->key);
    std::size_t i = 0;
    for (const auto& run : segment.rows) {
      for (auto row = run.first; row < run.first + run.length; ++row, ++i) {
        rows_.at(static_cast<std::size_t>(row)) = row_of(begin, segment.position + static_cast<std::int64_t>(i), segment.tokens[i]);
      }
    }
    if (i != segment.tokens.size()) throw std::logic_error("as many rows as tokens");
  }

  void append_states(const Segment& segment) {
    const auto begin = begin_state(segment.assignment->key);
    auto state = begin;
    std::int64_t position = 0;
    const auto read = [&](const RowSpan& run, bool is_own) {
      for (auto row = run.first; row < run.first + run.length; ++row) {
        const auto held = rows_.at(static_cast<std::size_t>(row));
        const auto token = static_cast<std::int32_t>(held & 0xffff);
        if (((held ^ row_of(begin, 0, 0)) >> 32u) != 0) throw std::logic_error("a row of another assignment");
        if (held != row_of(begin, position++, token)) throw std::logic_error("a row out of order");
        state = next_state(state, token);
        if (is_own) states_.push_back(state);
      }
    };
    for (const auto& run : segment.visible) read(run, false);
    if (position != segment.position) throw std::logic_error("rows are missing");
    for (const auto& run : segment.rows) read(run, true);
  }

  FakeOptions options_;
  std::vector<std::uint64_t> rows_;       // row_of, or 0
  std::vector<std::uint64_t> states_;     // of the pass' rows, segment by segment
  std::vector<std::size_t> first_state_;  // of each segment
  std::vector<std::vector<float>> logits_;
};

}  // namespace quiver::schedule
