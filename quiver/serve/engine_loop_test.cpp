#include "quiver/serve/engine_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "quiver/base/error.h"
#include "quiver/serve/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::serve {
namespace {

using namespace std::chrono_literals;
using schedule::FakeEngine;

TEST(EngineLoop, TellsAnAnswerTokenByToken) {
  FakeEngine engine;
  std::thread::id started;
  EngineLoop loop(engine, {}, [&] { started = std::this_thread::get_id(); });
  Listener listener;
  std::atomic<bool> is_other{false};
  const auto request = request_of({1, 2, 3}, 5);
  loop.submit({{request, [&](schedule::Event event) {
                  if (std::this_thread::get_id() != started) is_other = true;
                  listener.on_event()(std::move(event));
                }}});
  ASSERT_TRUE(listener.wait());
  EXPECT_FALSE(is_other) << "all on the engine's thread";
  EXPECT_EQ(listener.tokens(), answer_of(engine, request));
  EXPECT_EQ(listener.finish(), schedule::Finish::kLength);
  EXPECT_EQ(loop.num_open(), 0);
  EXPECT_TRUE(eventually([&] { return loop.status().counts.generated_tokens == 5; }));
  EXPECT_EQ(loop.status().seconds_since_beat, 0);
}

TEST(EngineLoop, ManyThreadsSubmitCancelAndPause) {
  const auto run = run_clients({.num_threads = 4, .requests_each = 150});
  EXPECT_EQ(run.num_wrong, 0);
  EXPECT_GT(run.num_ended, 400);
  EXPECT_GT(run.num_cancelled, 20);
  EXPECT_EQ(run.num_open, 0);
}

TEST(EngineLoop, AStepThatThrowsEndsItsRequestsAlone) {
  FakeEngine engine;
  Gate gate;
  std::atomic<int> steps{0};
  engine.on_compute = [&] {
    if (++steps == 1) gate.pass();
    if (steps == 3) fail(ErrorKind::kIo, "a broken step");
  };
  EngineLoop loop(engine, {.max_sequences = 2});
  Listener first, second, third;
  const auto request = request_of({4, 5}, 6);
  loop.submit({{request, first.on_event()}, {request, second.on_event()}, {request, third.on_event()}});  // the third has no place
  gate.open();
  ASSERT_TRUE(first.wait() && second.wait() && third.wait());
  for (auto* one : {&first, &second}) {
    EXPECT_EQ(one->finish(), schedule::Finish::kError);
    EXPECT_EQ(one->tokens().size(), 2u);
    EXPECT_ERROR(std::rethrow_exception(one->error()), ErrorKind::kIo, "a broken step");
  }
  EXPECT_EQ(third.tokens(), answer_of(engine, request));
  EXPECT_EQ(loop.status().failed_steps, 1u);
  EXPECT_EQ(loop.num_open(), 0);
}

TEST(EngineLoop, ARequestThatCannotBeScheduledEndsWithItsError) {
  FakeEngine engine;
  EngineLoop loop(engine, {});
  Listener bad, good;
  loop.submit({{request_of({}, 3), bad.on_event()}, {request_of({1}, 3), good.on_event()}});
  ASSERT_TRUE(bad.wait() && good.wait());
  EXPECT_ERROR(std::rethrow_exception(bad.error()), ErrorKind::kUsage, "has no tokens");
  EXPECT_EQ(good.tokens().size(), 3u);
  EXPECT_EQ(loop.num_open(), 0);
}

TEST(EngineLoop, FailsWhatWaitsAndLetsTheRestEnd) {
  FakeEngine engine;
  Gate gate;
  engine.on_compute = [&] { gate.pass(); };
  EngineLoop loop(engine, {.max_sequences = 1});
  Listener running, waiting, later;
  const auto request = request_of({7}, 4);
  loop.submit({{request, running.on_event()}});
  gate.wait_for_arrival();
  loop.submit({{request, waiting.on_event()}});
  loop.fail_waiting(std::make_exception_ptr(Error(ErrorKind::kIo, "no more")));
  loop.submit({{request, later.on_event()}});
  gate.open();
  ASSERT_TRUE(running.wait() && waiting.wait() && later.wait());
  EXPECT_ERROR(std::rethrow_exception(waiting.error()), ErrorKind::kIo, "no more");
  EXPECT_EQ(running.tokens(), answer_of(engine, request));
  EXPECT_EQ(later.tokens(), answer_of(engine, request));
}

TEST(EngineLoop, CancelledAndPausedRequests) {
  FakeEngine engine({.context_length = 100'000, .num_cache_rows = 200'000});
  EngineLoop loop(engine, {});
  Listener endless, other;
  const auto tickets = loop.submit({{request_of({1}, 90'000), endless.on_event()}});
  ASSERT_TRUE(eventually([&] { return !endless.tokens().empty(); }));
  loop.set_paused(tickets[0], true);
  ASSERT_TRUE(eventually([&] { return loop.status().seconds_since_beat == 0; })) << "nothing to do";
  const auto so_far = endless.tokens().size();
  loop.submit({{request_of({2}, 50), other.on_event()}});
  ASSERT_TRUE(other.wait());
  EXPECT_EQ(endless.tokens().size(), so_far);
  loop.set_paused(tickets[0], false);
  ASSERT_TRUE(eventually([&] { return endless.tokens().size() > so_far; }));
  loop.cancel(tickets[0]);
  loop.cancel(tickets[0]);
  loop.cancel(12345);
  ASSERT_TRUE(eventually([&] { return loop.num_open() == 0; }));
  const auto at_end = endless.tokens().size();
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(endless.tokens().size(), at_end);
  EXPECT_FALSE(endless.finish().has_value());
  EXPECT_TRUE(eventually([&] {
    const auto counts = loop.status().counts;
    return counts.num_running == 0 && counts.num_free_pages + counts.num_cached_pages == counts.num_pages;
  }));
}

TEST(EngineLoop, AnEngineThatHangsHasNoBeat) {
  FakeEngine engine;
  Gate gate;
  engine.on_compute = [&] { gate.pass(); };
  EngineLoop loop(engine, {});
  EXPECT_EQ(loop.status().seconds_since_beat, 0);
  Listener listener;
  loop.submit({{request_of({1}, 1), listener.on_event()}});
  EXPECT_TRUE(eventually([&] { return loop.status().seconds_since_beat > 0.03; }));
  gate.open();
  ASSERT_TRUE(listener.wait());
  EXPECT_TRUE(eventually([&] { return loop.status().seconds_since_beat == 0; }));
  EXPECT_GT(loop.status().last_step_seconds, 0.03);
}

TEST(EngineLoop, StopsWhileItIsBusy) {
  FakeEngine engine({.context_length = 100'000, .num_cache_rows = 200'000});
  Listener listener;
  {
    EngineLoop loop(engine, {});
    for (int i = 0; i < 5; ++i) loop.submit({{request_of({i}, 10'000), listener.on_event()}});
    ASSERT_TRUE(eventually([&] { return listener.tokens().size() > 20; }));
    loop.stop();
    const auto told = listener.tokens().size();
    loop.submit({{request_of({1}, 1), listener.on_event()}});
    loop.stop();
    EXPECT_EQ(listener.tokens().size(), told);
  }
  EXPECT_FALSE(listener.finish().has_value());
}

}  // namespace
}  // namespace quiver::serve
