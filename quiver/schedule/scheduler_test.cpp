#include "quiver/schedule/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/schedule/fake_engine.h"
#include "quiver/testing/message_of.h"

namespace quiver::schedule {
namespace {

using Tokens = std::vector<std::int32_t>;

AssignmentPtr assignment_of(const std::string& key) {
  Assignment assignment;
  assignment.key = key;
  return std::make_shared<const Assignment>(assignment);
}

/// All that a request is told.
struct Told {
  Tokens tokens;
  std::vector<TokenScore> scores, prompt;
  std::optional<Finish> finish;
};

bool same(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b) {
  return std::ranges::equal(
      a, b, [](const TokenScore& x, const TokenScore& y) { return x.token == y.token && x.log_prob == y.log_prob && x.top == y.top; });
}

/// The definition: every token from a hash of all before it.
Told alone(const FakeEngine& engine, const Request& request) {
  const auto& options = request.options;
  Told told;
  Sampler sampler(options.sampler, request.tokens);
  auto state = FakeEngine::begin_state(request.assignment == nullptr ? "" : request.assignment->key);
  for (std::size_t i = 0; i < request.tokens.size(); ++i) {
    state = FakeEngine::next_state(state, request.tokens[i]);
    if (!request.is_scored || i + 1 == request.tokens.size()) continue;
    told.prompt.push_back(FakeEngine::answer({.target = request.tokens[i + 1], .top = std::max<std::int64_t>(options.top_log_probs, 0)},
                                             engine.logits_of(state))
                              .score);
  }
  const auto most = std::min(options.max_new_tokens, engine.context_length() - static_cast<std::int64_t>(request.tokens.size()));
  if (most == 0) told.finish = Finish::kLength;
  while (!told.finish) {
    const auto logits = engine.logits_of(state);
    const bool may_stop = std::ssize(told.tokens) >= options.min_new_tokens;
    const auto token = sampler.choose(logits, may_stop ? std::span<const std::int32_t>() : std::span<const std::int32_t>(options.stop_ids));
    sampler.count(token);
    told.tokens.push_back(token);
    if (options.top_log_probs >= 0)
      told.scores.push_back(FakeEngine::answer({.target = token, .top = options.top_log_probs}, logits).score);
    if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end())
      told.finish = Finish::kStopId;
    else if (std::ssize(told.tokens) >= most)
      told.finish = Finish::kLength;
    state = FakeEngine::next_state(state, token);
  }
  return told;
}

void add_event(Told& told, const Event& event, bool has_scores) {
  ASSERT_FALSE(told.finish.has_value());
  if (event.token >= 0) told.tokens.push_back(event.token);
  if (event.token >= 0 && has_scores) told.scores.push_back(event.score);
  if (!event.prompt.empty()) {
    EXPECT_TRUE(told.prompt.empty());
    told.prompt = event.prompt;
  }
  told.finish = event.finish;
}

/// A request of one of many kinds, which begins like many others.
Request random_request(RandomStream& random, std::int64_t context) {
  Request request;
  const std::vector<std::string> keys = {"", "qnli", "arrow(a,b)", "arrow(a,c)"};
  const auto key = keys[random.below(keys.size())];
  if (!key.empty()) request.assignment = assignment_of(key);
  const auto family = random.below(3);
  const auto length = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(context) - 2));
  const auto common = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(length) + 1));
  for (std::int64_t i = 0; i < length; ++i) {
    request.tokens.push_back(static_cast<std::int32_t>(i < common ? (family * 7 + static_cast<std::uint64_t>(i)) % 40 : random.below(40)));
  }
  auto& options = request.options;
  options.max_new_tokens = 1 + static_cast<std::int64_t>(random.below(12));
  if (random.below(3) == 0) options.sampler = {.temperature = 0.9, .top_p = 0.8, .seed = random.next(), .stream = "s"};
  if (random.below(6) == 0) options.sampler.repetition_penalty = 1.3;
  if (random.below(6) == 0) options.sampler.presence_penalty = 0.5;
  if (random.below(4) == 0) options.stop_ids = {3, 5, 7};
  if (random.below(8) == 0) options.min_new_tokens = 3;
  if (random.below(4) == 0) options.top_log_probs = static_cast<std::int64_t>(random.below(4));
  if (random.below(4) == 0) {
    request.is_scored = true;
    if (random.below(2) == 0) options.max_new_tokens = static_cast<std::int64_t>(random.below(2));
  }
  if (random.below(10) == 0) request.cache_salt = "tenant";
  request.client = format("client {}", random.below(3));
  request.name = "the prompt";
  return request;
}

/// Requests that come, go and pause over a small cache. Every answer is that of the request alone.
void run_schedule(std::uint64_t seed, SchedulerCounts& totals) {
  SCOPED_TRACE(seed);
  RandomStream random(seed, "schedule");
  const auto context = static_cast<std::int64_t>(6 + random.below(30));
  const auto page_rows = static_cast<std::int64_t>(1 + random.below(5));
  FakeEngine engine({.context_length = context, .num_cache_rows = context + 3 * page_rows + static_cast<std::int64_t>(random.below(120))});
  if (random.below(4) == 0) {
    engine.on_compute = [&] {
      if (random.below(8) == 0) fail(ErrorKind::kIo, "a pass that fails");
    };
  }
  Scheduler scheduler(engine, {.max_sequences = static_cast<std::int64_t>(1 + random.below(8)),
                               .page_rows = page_rows,
                               .max_step_rows = static_cast<std::int64_t>(1 + random.below(60)),
                               .keeps_prefixes = random.below(5) != 0});
  std::map<RequestId, Request> requests;
  std::map<RequestId, Told> told;
  std::set<RequestId> removed, paused;
  const int most = 25;
  for (int added = 0, steps = 0; added < most || !scheduler.is_empty(); ++steps) {
    ASSERT_LT(steps, 5000);
    while (added < most && random.below(3) != 0) {
      // Sometimes what was asked before, with its answer: a conversation that goes on.
      auto request = random_request(random, context);
      if (!told.empty() && random.below(4) == 0) {
        const auto& [id, before] = *std::next(told.begin(), static_cast<std::ptrdiff_t>(random.below(told.size())));
        auto tokens = requests.at(id).tokens;
        tokens.insert(tokens.end(), before.tokens.begin(), before.tokens.end());
        tokens.push_back(1);
        if (std::ssize(tokens) < context - 1) {
          request.tokens = tokens;
          request.assignment = requests.at(id).assignment;
        }
      }
      requests.emplace(scheduler.add(request), request);
      ++added;
    }
    if (!requests.empty() && random.below(8) == 0) {
      const auto id = random.below(requests.size());
      if (scheduler.remove(id)) removed.insert(id);
    }
    if (!requests.empty() && random.below(6) == 0) {
      const auto id = random.below(requests.size());
      if (scheduler.set_paused(id, true)) paused.insert(id);
    }
    if (random.below(3) == 0 || added == most) {
      for (const auto id : paused) scheduler.set_paused(id, false);
      paused.clear();
    }
    try {
      for (const auto& event : scheduler.step()) {
        ASSERT_FALSE(removed.contains(event.id));
        add_event(told[event.id], event, requests.at(event.id).options.top_log_probs >= 0);
      }
    } catch (const Error&) {  // all goes on as if the step had not been
    }
  }
  for (const auto& [id, request] : requests) {
    const auto expected = alone(engine, request);
    const auto& got = told[id];
    if (removed.contains(id)) continue;
    EXPECT_EQ(got.tokens, expected.tokens) << "request " << id;
    EXPECT_EQ(got.finish, expected.finish) << "request " << id;
    EXPECT_TRUE(same(got.scores, expected.scores)) << "request " << id;
    EXPECT_TRUE(same(got.prompt, expected.prompt)) << "request " << id;
  }
  const auto counts = scheduler.counts();
  EXPECT_GE(counts.num_free_pages + counts.num_cached_pages, counts.num_pages);
  scheduler.forget_prefixes();
  EXPECT_EQ(scheduler.counts().num_free_pages, counts.num_pages);
  totals.preemptions += counts.preemptions;
  totals.cached_tokens += counts.cached_tokens;
  totals.computed_tokens += counts.computed_tokens;
}

TEST(Scheduler, EveryAnswerIsThatOfTheRequestAlone) {
  SchedulerCounts totals;
  for (std::uint64_t seed = 0; seed < 10000; ++seed) {
    run_schedule(seed, totals);
    if (::testing::Test::HasFailure()) return;
  }
  // The schedules come to what they are there for.
  EXPECT_GT(totals.preemptions, 1000u);
  EXPECT_GT(totals.cached_tokens, 100000u);
}

}  // namespace
}  // namespace quiver::schedule
