#include "quiver/schedule/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <thread>

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
    if (!request.is_scored || i + 1 == request.tokens.size() || static_cast<std::int64_t>(i) + 1 < request.first_scored) continue;
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
  const auto& key = keys[random.below(keys.size())];
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
    if (length > 1 && random.below(2) == 0)
      request.first_scored = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(length) - 1));
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
          request.first_scored = std::min<std::int64_t>(request.first_scored, std::ssize(tokens) - 1);
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
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch): all goes on as if the step had not been
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

/// QUIVER_SCHEDULES=10000 runs so many in place of 2,000.
TEST(Scheduler, EveryAnswerIsThatOfTheRequestAlone) {
  const char* given = std::getenv("QUIVER_SCHEDULES");
  const std::uint64_t num_schedules = given == nullptr ? 2000 : std::strtoull(given, nullptr, 10);
  SchedulerCounts totals;
  for (std::uint64_t seed = 0; seed < num_schedules; ++seed) {
    run_schedule(seed, totals);
    if (::testing::Test::HasFailure()) return;
  }
  // The schedules come to what they are there for.
  EXPECT_GT(totals.preemptions, num_schedules / 10);
  EXPECT_GT(totals.cached_tokens, 10 * num_schedules);
}

Request request_of(const Tokens& tokens, std::int64_t max_new_tokens, const std::string& client = {}) {
  Request request{.tokens = tokens, .client = client, .name = "the prompt"};
  request.options.max_new_tokens = max_new_tokens;
  return request;
}

Tokens counted(std::int64_t length, std::int32_t first = 0) {
  Tokens tokens;
  for (std::int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<std::int32_t>((first + i) % 40));
  return tokens;
}

/// Steps until nothing is left; what each request was told, and after how many steps it ended.
std::map<RequestId, Told> run_to_end(Scheduler& scheduler, std::map<RequestId, int>* ends = nullptr) {
  std::map<RequestId, Told> told;
  for (int step = 1; !scheduler.is_empty(); ++step) {
    if (step > 10000) {
      ADD_FAILURE() << "no end";
      break;
    }
    for (const auto& event : scheduler.step()) {
      add_event(told[event.id], event, /*has_scores=*/true);
      if (event.finish && ends != nullptr) (*ends)[event.id] = step;
    }
  }
  return told;
}

TEST(Scheduler, AClientWithManyRequestsDoesNotHoldUpOneWithASingle) {
  FakeEngine engine({.num_cache_rows = 400});
  Scheduler scheduler(engine, {.max_sequences = 4});
  for (int i = 0; i < 200; ++i) scheduler.add(request_of(counted(8, i), 8, "many"));
  std::map<RequestId, int> ends;
  for (int i = 0; i < 3; ++i) scheduler.step();
  const auto single = scheduler.add(request_of({1, 2, 3}, 4, "one"));
  run_to_end(scheduler, &ends);
  // The next place that gets free is its own: 8 steps at most, and then 4 for its answer.
  EXPECT_LE(ends.at(single), 8 + 4);
  EXPECT_EQ(std::ranges::count_if(ends, [&](const auto& one) { return one.second < ends.at(single); }), 4);
}

TEST(Scheduler, ClientsGetEqualSharesOfTokens) {
  FakeEngine engine({.context_length = 64, .num_cache_rows = 640});
  Scheduler scheduler(engine, {.max_sequences = 4, .keeps_prefixes = false});
  std::map<RequestId, std::string> clients;
  for (int i = 0; i < 100; ++i) clients[scheduler.add(request_of(counted(30, i), 30, "long"))] = "long";
  for (int i = 0; i < 600; ++i) clients[scheduler.add(request_of(counted(5, i), 5, "short"))] = "short";
  std::map<std::string, std::int64_t> tokens;
  for (int step = 0; step < 400; ++step) {
    for (const auto& event : scheduler.step()) {
      ++tokens[clients.at(event.id)];
      if (event.finish) tokens[clients.at(event.id)] += clients.at(event.id) == "long" ? 30 : 5;  // its prompt
    }
  }
  EXPECT_GT(tokens.at("short"), 1000);
  EXPECT_NEAR(static_cast<double>(tokens.at("long")) / static_cast<double>(tokens.at("short")), 1, 0.1);
}

TEST(Scheduler, ManyEqualPromptsAreComputedOnce) {
  FakeEngine engine({.num_cache_rows = 1024});
  Scheduler scheduler(engine);
  for (int i = 0; i < 16; ++i) {
    auto request = request_of(counted(40), 3);
    request.options.sampler = {.temperature = 1, .seed = static_cast<std::uint64_t>(i), .stream = "s"};
    scheduler.add(request);
  }
  run_to_end(scheduler);
  const auto counts = scheduler.counts();
  // The last token of a prompt is computed for each, since its logits are wanted, and two of the three new ones.
  EXPECT_EQ(counts.computed_tokens, 39u + 16 * 3);
  EXPECT_EQ(counts.cached_tokens, 15u * 39);
  EXPECT_EQ(counts.generated_tokens, 48u);
  EXPECT_EQ(counts.steps, 3u);
}

TEST(Scheduler, APromptWaitsForRowsThatAnotherIsComputing) {
  FakeEngine engine({.context_length = 200, .num_cache_rows = 800});
  Scheduler scheduler(engine, {.max_step_rows = 20});
  const auto first = scheduler.add(request_of(counted(100), 2));
  scheduler.step();  // 20 of its 100 tokens
  auto request = request_of(counted(100), 2);
  request.tokens.push_back(7);
  const auto second = scheduler.add(request);
  const auto other = scheduler.add(request_of({5, 4, 3}, 1));  // does not wait behind it
  std::map<RequestId, int> ends;
  const auto told = run_to_end(scheduler, &ends);
  EXPECT_EQ(scheduler.counts().computed_tokens, 100u + 3 + 1 + 2) << "the first prompt, the third, a token more, and each first new one";
  EXPECT_EQ(scheduler.counts().cached_tokens, 100u);
  EXPECT_LE(ends.at(other), ends.at(first));
  EXPECT_EQ(told.at(second).tokens, alone(engine, request).tokens);
}

TEST(Scheduler, ScoredRequestsShareRowsAndScores) {
  FakeEngine engine({.context_length = 64, .num_cache_rows = 640});
  Scheduler scheduler(engine);
  /// Scores beginning + middle + an end of five tokens of each of four requests. Returns the rows that were computed.
  const auto score = [&](std::int64_t middle, std::int32_t ends, std::int64_t top) {
    std::vector<Request> requests;
    for (int i = 0; i < 4; ++i) {
      auto request = request_of(counted(30), 0);
      request.is_scored = true;
      request.options.top_log_probs = top;
      for (int j = 0; j < middle; ++j) request.tokens.push_back((ends + j) % 40);
      for (int j = 0; j < 5; ++j) request.tokens.push_back((ends + i + 2 * j) % 40);
      requests.push_back(request);
    }
    const auto before = scheduler.counts().computed_tokens;
    std::vector<RequestId> ids;
    for (const auto& request : requests) ids.push_back(scheduler.add(request));
    const auto told = run_to_end(scheduler);
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_TRUE(same(told.at(ids[i]).prompt, alone(engine, requests[i]).prompt)) << i;
    return scheduler.counts().computed_tokens - before;
  };
  EXPECT_EQ(score(0, 3, 0), 30u + 4 * 5) << "the beginning once";
  EXPECT_EQ(scheduler.counts().cached_tokens, 0u);
  EXPECT_EQ(score(0, 3, 0), 4u * 2) << "the last token of each, and the row before it";
  EXPECT_EQ(scheduler.counts().cached_tokens, 4u * 33);
  EXPECT_EQ(score(0, 11, 0), 4u * (1 + 5)) << "other ends, and the row before them";
  EXPECT_EQ(score(10, 21, 0), 1u + 10 + 4 * 5) << "a middle once";
  EXPECT_EQ(score(0, 3, 2), 30u + 4 * 5) << "scores with likeliest tokens are others";
  scheduler.forget_prefixes();
  EXPECT_EQ(scheduler.counts().num_cached_pages, 0);
  EXPECT_EQ(score(0, 3, 0), 30u + 4 * 5);
}

TEST(Scheduler, WhatComesBeforeScoredTokensIsSharedWithAll) {
  FakeEngine engine({.context_length = 64, .num_cache_rows = 640});
  Scheduler scheduler(engine);
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) {  // choices after one context
    auto request = request_of(counted(30), 0);
    request.is_scored = true;
    request.first_scored = 30;
    for (int j = 0; j < 5; ++j) request.tokens.push_back((i + 2 * j) % 40);
    requests.push_back(request);
  }
  std::vector<RequestId> ids;
  for (const auto& request : requests) ids.push_back(scheduler.add(request));
  auto told = run_to_end(scheduler);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(told.at(ids[i]).prompt.size(), 5u);
    EXPECT_TRUE(same(told.at(ids[i]).prompt, alone(engine, requests[i]).prompt)) << i;
  }
  EXPECT_EQ(scheduler.counts().computed_tokens, 35u + 3 * (1 + 5)) << "the context once, its last row for each";
  const auto answer = scheduler.add(request_of(counted(30), 3));
  told = run_to_end(scheduler);
  EXPECT_EQ(told.at(answer).tokens, alone(engine, request_of(counted(30), 3)).tokens);
  EXPECT_EQ(scheduler.counts().computed_tokens, 35u + 3 * 6 + 1 + 2) << "the context's last row, and two new tokens";
  EXPECT_EQ(scheduler.counts().cached_tokens, 3u * 29 + 29);
}

TEST(Scheduler, RequestsThatLoseTheirRowsGetTheSameAnswers) {
  FakeEngine engine({.context_length = 64, .num_cache_rows = 80});
  Scheduler scheduler(engine, {.page_rows = 4, .keeps_prefixes = false});
  std::map<RequestId, Request> requests;
  for (int i = 0; i < 6; ++i) {
    auto request = request_of(counted(6, 5 * i), 40);
    request.options.sampler = {.temperature = 0.8, .seed = static_cast<std::uint64_t>(i), .stream = "s"};
    request.options.top_log_probs = 2;
    requests.emplace(scheduler.add(request), request);
  }
  const auto told = run_to_end(scheduler);
  EXPECT_GT(scheduler.counts().preemptions, 3u);
  for (const auto& [id, request] : requests) {
    const auto expected = alone(engine, request);
    EXPECT_EQ(told.at(id).tokens, expected.tokens);
    EXPECT_TRUE(same(told.at(id).scores, expected.scores));
  }
}

TEST(Scheduler, ADecisionThatFailsEndsItsRequestAlone) {
  FakeEngine engine;
  const auto by_prompt = assignment_of("by prompt"), good = assignment_of("good");
  std::vector<Tokens> seen;
  engine.on_decide = [&](const AssignmentPtr& assignment, std::span<const std::int32_t> prompt) {
    if (assignment->key == "good") return assignment;
    seen.emplace_back(prompt.begin(), prompt.end());
    if (prompt.front() == 9) fail(ErrorKind::kIo, "no decision");
    return assignment_of("decided " + std::to_string(prompt.back()));
  };
  Scheduler scheduler(engine);
  auto bad = request_of({9, 9}, 3), fine = request_of({1, 2, 3, 4}, 3), plain = request_of({9, 9}, 3);
  bad.assignment = fine.assignment = by_prompt;
  plain.assignment = good;
  fine.decide_on = 2;
  const auto bad_id = scheduler.add(bad), fine_id = scheduler.add(fine), plain_id = scheduler.add(plain);
  std::map<RequestId, Told> told;
  std::exception_ptr error;
  while (!scheduler.is_empty()) {
    for (const auto& event : scheduler.step()) {
      if (event.error != nullptr) error = event.error;
      add_event(told[event.id], event, false);
    }
  }
  EXPECT_EQ(told.at(bad_id).finish, Finish::kError);
  EXPECT_TRUE(told.at(bad_id).tokens.empty());
  EXPECT_ERROR(std::rethrow_exception(error), ErrorKind::kIo, "no decision");
  EXPECT_EQ(seen, (std::vector<Tokens>{{9, 9}, {1, 2}})) << "decided once, on what it may see";
  fine.assignment = assignment_of("decided 2");
  EXPECT_EQ(told.at(fine_id).tokens, alone(engine, fine).tokens);
  EXPECT_EQ(told.at(plain_id).tokens, alone(engine, plain).tokens);
  EXPECT_FALSE(scheduler.has_work());
}

TEST(Scheduler, APassBesideAnswersIsAsShortAsItMayBe) {
  FakeEngine engine({.context_length = 2000, .num_cache_rows = 8000});
  std::int64_t rows = 0;
  engine.on_segments = [&](std::span<const Segment> segments) {
    rows = 0;
    for (const auto& segment : segments) rows += std::ssize(segment.tokens);
    std::this_thread::sleep_for(std::chrono::microseconds(100 * rows));  // never less
  };
  Scheduler scheduler(engine, {.max_step_rows = 400, .max_step_seconds = 0.005});
  scheduler.add(request_of(counted(100), 1000));
  scheduler.step();
  EXPECT_EQ(rows, 100) << "nobody is being answered";
  scheduler.add(request_of(counted(1000, 3), 1));
  for (int i = 0; i < 5; ++i) {
    scheduler.step();
    EXPECT_LE(rows, 50) << "of 100 microseconds or more each";
    EXPECT_GE(rows, 16);
  }
}

TEST(Scheduler, RefusesOptionsAndRequestsThatCannotBe) {
  FakeEngine engine({.context_length = 20, .num_cache_rows = 32});
  EXPECT_ERROR(Scheduler(engine, {.max_sequences = 0}), ErrorKind::kUsage, "max_sequences is 0; expected 1 or more");
  EXPECT_ERROR(Scheduler(engine, {.max_step_rows = 0}), ErrorKind::kUsage, "max_step_rows is 0; expected 1 or more");
  EXPECT_ERROR(Scheduler(engine, {.max_step_seconds = -1}), ErrorKind::kUsage, "max_step_seconds is -1; expected 0 (no limit) or more");
  Scheduler scheduler(engine, {.page_rows = 16});
  EXPECT_ERROR(scheduler.add(request_of({}, 1)), ErrorKind::kUsage, "the prompt has no tokens");
  auto scored = request_of({1, 2, 3}, 0);
  scored.is_scored = true;
  scored.first_scored = 3;
  EXPECT_ERROR(scheduler.add(scored), ErrorKind::kUsage, "first_scored is 3; expected 1 to 2, the last token");
  EXPECT_ERROR(scheduler.add(request_of({1}, 0)), ErrorKind::kUsage, "max_new_tokens is 0; expected 1 or more");
  EXPECT_ERROR(scheduler.add(request_of({40}, 1)), ErrorKind::kMismatch, "token id 40 is outside the model's vocabulary of 40");
  EXPECT_ERROR(scheduler.add(request_of(counted(20), 1)), ErrorKind::kUsage, "the prompt has 20 tokens; the model's context of 20");
  EXPECT_ERROR(scheduler.add(request_of(counted(17), 1)), ErrorKind::kUsage, "take 3 pages of 16 rows of the KV cache, which has 2");
  EXPECT_TRUE(scheduler.is_empty());
  EXPECT_FALSE(scheduler.remove(0));
  EXPECT_FALSE(scheduler.set_paused(0, true));
}

}  // namespace
}  // namespace quiver::schedule
