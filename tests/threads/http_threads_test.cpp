// Clients, a server, and threads that answer: make tsan looks on.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "quiver/http/test_support.h"
#include "tests/threads/support.h"

namespace quiver::http {
namespace {

using quiver::testing::kThreads;
using quiver::testing::on_threads;

/// Requests that threads take and answer.
class Workers {
 public:
  Workers() {
    for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }
  ~Workers() {
    for (auto& thread : threads_) thread.request_stop();
    ready_.notify_all();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  Handle handle() {
    return [this](Request request, ResponderPtr responder) {
      const std::lock_guard lock(mutex_);
      jobs_.push_back({std::move(request), std::move(responder)});
      ready_.notify_one();
    };
  }
  std::atomic<int> num_gone = 0;

 private:
  struct Job {
    Request request;
    ResponderPtr responder;
  };

  void work(const std::stop_token& stop) {
    for (;;) {
      std::unique_lock lock(mutex_);
      if (!ready_.wait(lock, stop, [&] { return !jobs_.empty(); })) return;
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      answer(job.request, job.responder);
    }
  }
  void answer(const Request& request, const ResponderPtr& responder) {
    responder->on_gone([this] { ++num_gone; });
    if (request.path == "/dropped") return;
    if (request.path != "/stream") return responder->send({.body = request.body});
    responder->begin_stream(200, "text/plain");
    for (int i = 0; i < 20 && responder->write(std::string(500, static_cast<char>('a' + i))); ++i) {
      if (responder->pending_bytes() > 100'000) std::this_thread::yield();
    }
    if (responder->is_open()) responder->end();
  }

  std::mutex mutex_;
  std::condition_variable_any ready_;
  std::deque<Job> jobs_;
  std::vector<std::jthread> threads_;
};

std::string streamed() {
  std::string text;
  for (int i = 0; i < 20; ++i) text += std::string(500, static_cast<char>('a' + i));
  return text;
}

TEST(HttpThreads, ManyClientsGetTheirOwnAnswersFromManyThreads) {
  Workers workers;
  RunningServer server(workers.handle());
  std::atomic<int> num_ticks = 0;
  server->every(std::chrono::milliseconds(1), [&] { ++num_ticks; });
  on_threads([&](std::size_t thread) {
    for (int i = 0; i < 60; ++i) {
      Client client(server.port());
      const std::string body = std::to_string(thread) + "/" + std::to_string(i), size = std::to_string(body.size());
      for (int repeat = 0; repeat < 2; ++repeat) {
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: " + size + "\r\n\r\n" + body);
        ASSERT_EQ(client.answer().body, body);
      }
      client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
      if (i % 3 == 0) {
        client.read(static_cast<std::size_t>(i) * 20);
        i % 2 == 0 ? client.reset() : client.close();
      } else if (i % 3 == 1) {
        ASSERT_EQ(client.answer().body, streamed());
      } else {
        ASSERT_EQ(client.answer().body, streamed());
        client.send("GET /dropped HTTP/1.1\r\nHost: test\r\n\r\n");
        ASSERT_EQ(client.answer().status, 500);
      }
      server->post([] {});
      ASSERT_GE(server->counts().accepted, 1U);
    }
  });
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(server->counts().accepted, kThreads * 60);
  server->close_listener();
}

TEST(HttpThreads, AServerStopsWhileThreadsAnswer) {
  for (int round = 0; round < 20; ++round) {
    Workers workers;  // outlives the server, and so do its responders
    std::vector<Client> clients;
    RunningServer server(workers.handle());
    for (int i = 0; i < 8; ++i) {
      clients.emplace_back(server.port());
      clients.back().send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    if (round % 2 == 0) clients.back().answer();
    server.stop();
    EXPECT_EQ(server->counts().num_connections, 0U);
  }
}

}  // namespace
}  // namespace quiver::http
