// Requests to a fake engine, whoever listens to their answers, and clients that do as they please.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/schedule/fake_engine.h"
#include "quiver/serve/engine_loop.h"

namespace quiver::serve {

using Tokens = std::vector<std::int32_t>;

/// Whether a claim becomes true. Waits a minute: a test that waits so long has failed.
inline bool eventually(const std::function<bool()>& claim) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!claim()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

inline schedule::AssignmentPtr assignment_of(const std::string& key) {
  schedule::Assignment assignment;
  assignment.key = key;
  return std::make_shared<const schedule::Assignment>(assignment);
}

inline schedule::Request request_of(const Tokens& tokens, std::int64_t max_new_tokens, schedule::AssignmentPtr assignment = nullptr) {
  schedule::Request request{.tokens = tokens, .assignment = std::move(assignment), .name = "the prompt"};
  request.options.max_new_tokens = max_new_tokens;
  return request;
}

/// The greedy answer to a request alone.
inline Tokens answer_of(const schedule::FakeEngine& engine, const schedule::Request& request) {
  auto state = schedule::FakeEngine::begin_state(request.assignment == nullptr ? "" : request.assignment->key);
  for (const auto token : request.tokens) state = schedule::FakeEngine::next_state(state, token);
  Tokens answer;
  for (std::int64_t i = 0; i < request.options.max_new_tokens; ++i) {
    answer.push_back(engine.largest_of(state));
    state = schedule::FakeEngine::next_state(state, answer.back());
  }
  return answer;
}

/// Keeps what a request is told. Thread-safe.
class Listener {
 public:
  OnEvent on_event() {
    return [this](const schedule::Event& event) {
      const std::lock_guard lock(mutex_);
      if (event.token >= 0) tokens_.push_back(event.token);
      if (event.finish) finish_ = event.finish;
      if (event.error != nullptr) error_ = event.error;
    };
  }
  bool wait() const {
    return eventually([this] { return finish().has_value(); });
  }
  Tokens tokens() const {
    const std::lock_guard lock(mutex_);
    return tokens_;
  }
  std::optional<schedule::Finish> finish() const {
    const std::lock_guard lock(mutex_);
    return finish_;
  }
  std::exception_ptr error() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  mutable std::mutex mutex_;
  Tokens tokens_;
  std::optional<schedule::Finish> finish_;
  std::exception_ptr error_;
};

/// Holds a thread up until it is opened, for good.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    has_arrived_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return is_open_; });
  }
  void wait_for_arrival() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return has_arrived_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false, has_arrived_ = false;
};

struct ClientsOptions {
  int num_threads = 4;
  int requests_each = 100;
};
struct ClientsRun {
  int num_ended = 0, num_cancelled = 0, num_wrong = 0;
  std::int64_t num_open = 0;  ///< at the end
  std::uint64_t num_tokens = 0;
  double seconds = 0;
};

/// Clients that submit, cancel and pause at random against one loop over a fake engine, while another thread replaces assignments. Every
/// answer that is not cancelled is compared with the answer alone.
inline ClientsRun run_clients(const ClientsOptions& options) {
  constexpr std::size_t kNames = 4;
  schedule::FakeEngine engine({.vocab_size = 8, .context_length = 64, .num_cache_rows = 2048});
  EngineLoop loop(engine, {.max_sequences = 32, .page_rows = 4});
  std::mutex mutex;  // of what is published
  std::vector<schedule::AssignmentPtr> published;
  for (std::size_t i = 0; i < kNames; ++i) published.push_back(assignment_of("adapter " + std::to_string(i)));
  std::atomic<bool> has_ended{false};
  std::thread publisher([&] {
    for (std::size_t version = 0; !has_ended; ++version) {
      {
        auto made = assignment_of("adapter " + std::to_string(version % kNames) + " version " + std::to_string(version));
        const std::lock_guard lock(mutex);
        published[version % kNames] = std::move(made);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  std::atomic<int> num_ended{0}, num_cancelled{0}, num_wrong{0};
  const auto client = [&](int thread) {
    RandomStream random(static_cast<std::uint64_t>(thread), "client");
    struct Asked {
      schedule::Request request;
      std::unique_ptr<Listener> listener;
      Ticket ticket;
    };
    std::vector<Asked> asked;
    const auto settle = [&](Asked& one) {
      loop.set_paused(one.ticket, false);
      if (!one.listener->wait() || one.listener->tokens() != answer_of(engine, one.request)) ++num_wrong;
      ++num_ended;
    };
    for (int i = 0; i < options.requests_each; ++i) {
      schedule::AssignmentPtr assignment;
      {
        const std::lock_guard lock(mutex);
        assignment = published[random.below(kNames)];
      }
      Tokens tokens;
      for (std::uint64_t t = 0; t < 1 + random.below(20); ++t) tokens.push_back(static_cast<std::int32_t>(random.below(3)));
      Asked one{request_of(tokens, 1 + static_cast<std::int64_t>(random.below(40)), assignment), std::make_unique<Listener>(), 0};
      one.request.client = std::to_string(thread);
      one.ticket = loop.submit({{one.request, one.listener->on_event()}}).front();
      asked.push_back(std::move(one));
      auto& some = asked[random.below(asked.size())];
      if (random.below(4) == 0) loop.set_paused(some.ticket, random.below(2) == 0);
      if (random.below(10) == 0) {  // its listener stays until the loop has ended: an event may be on its way
        loop.cancel(some.ticket);
        ++num_cancelled;
        some.request.tokens.clear();
      }
      if (asked.size() - static_cast<std::size_t>(i / 32 * 32) >= 32) {
        for (auto index = asked.size() - 32; index < asked.size(); ++index) {
          if (!asked[index].request.tokens.empty() && asked[index].ticket != 0) settle(asked[index]);
          asked[index].request.tokens.clear();
        }
      }
    }
    for (auto& one : asked) {
      if (!one.request.tokens.empty()) settle(one);
    }
    if (!eventually([&] { return loop.num_open() == 0 || num_ended > 0; })) ++num_wrong;
    return asked;
  };
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<decltype(client(0))> kept(static_cast<std::size_t>(options.num_threads));
    std::vector<std::thread> threads;
    for (int i = 0; i < options.num_threads; ++i) threads.emplace_back([&, i] { kept[static_cast<std::size_t>(i)] = client(i); });
    for (auto& thread : threads) thread.join();
    if (!eventually([&] { return loop.num_open() == 0; })) ++num_wrong;
    has_ended = true;
    publisher.join();
    loop.stop();
  }
  ClientsRun run{num_ended, num_cancelled, num_wrong, loop.num_open(), loop.status().counts.generated_tokens};
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return run;
}

}  // namespace quiver::serve
