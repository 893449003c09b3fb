// One request for answers while it is being served: events of the engine in, JSON or events of a stream out.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quiver/api/answer.h"
#include "quiver/api/responses.h"
#include "quiver/http/server.h"
#include "quiver/schedule/scheduler.h"
#include "quiver/serve/engine_loop.h"
#include "quiver/serve/metrics.h"
#include "quiver/serve/worker_pool.h"
#include "quiver/text/tokenizer.h"

namespace quiver::serve {

/// When a stream is helped along and when it is given up.
struct StreamLimits {
  std::chrono::milliseconds ping_interval{15'000};   ///< silence after which a comment is sent, so that no proxy gives up
  std::size_t most_unread_bytes = 1 << 20;           ///< beyond these the answer pauses until the client has read
  std::chrono::milliseconds unread_timeout{10'000};  ///< a pause this long ends the request
  std::chrono::milliseconds queue_timeout{300'000};  ///< a request that has got nothing for so long ends
};

/// What is asked of the engine for one choice.
struct ChoicePlan {
  schedule::Request request;
  std::int64_t prompt_index = 0;
};

/// What is told of the routes of an answer's tokens.
struct RoutePlan {
  bool is_wanted = false;
  std::vector<std::string> adapters;  ///< that tokens are routed to
  std::int64_t num_layers = 0, num_maps = 0;
};

struct TaskPlan {
  api::AnswerHead head;
  std::vector<ChoicePlan> choices;  ///< in the order of their indices
  api::AnswerOptions answer;        ///< of each choice
  bool is_stream = false;
  RoutePlan route;
  http::Headers headers;  ///< of the answer
  std::string request_id;
};

/// Serves one request. Its text is made on workers, one event after another. Thread-safe; made as a shared pointer.
class GenerationTask : public std::enable_shared_from_this<GenerationTask> {
 public:
  struct Tools {
    const text::Tokenizer& tokenizer;
    EngineLoop& loop;
    WorkerPool& workers;
    Metrics& metrics;
    StreamLimits limits;
  };
  /// How a request ended, for the log.
  struct Outcome {
    std::string request_id, model;
    int status = 0;     ///< 499: the client went away
    std::string error;  ///< empty: none
    api::Usage usage;
    double seconds = 0, seconds_to_first = 0;
  };
  using OnEnd = std::function<void(const Outcome&)>;

  GenerationTask(Tools tools, TaskPlan plan, http::ResponderPtr responder, OnEnd on_end);

  /// Submits the choices. The head of a stream goes out at once.
  void start();
  /// Does what time demands: pings, pauses of slow readers, time limits.
  void tick();
  /// Ends the request with an error now, and whatever it waits for.
  void fail(const std::exception_ptr& error);

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    explicit Choice(api::Answer a) : answer(std::move(a)) {}
    api::Answer answer;
    api::Delta whole;  // without streaming
    Ticket ticket = 0;
    bool has_started = false, has_ended = false;
    Clock::time_point last_token;
    // Of routes that are told.
    std::deque<std::vector<schedule::LayerRoute>> routes;  // of tokens whose text is not complete
    std::int64_t num_routed = 0;                           // tokens whose routes were told
    std::int64_t num_characters = 0;                       // of text that was told
  };
  struct Arrival {
    std::size_t choice = 0;
    schedule::Event event;
  };

  void arrive(std::size_t choice, schedule::Event event);
  void work();
  void take(Arrival& arrival);
  void start_choice(std::size_t index, std::vector<schedule::TokenScore> prompt_scores, api::Delta& delta);
  void deliver(std::size_t index, api::Delta delta);
  std::string routes_of(Choice& choice, const api::Delta& delta) const;
  void write(std::string text);
  void complete();
  void give_up(const std::exception_ptr& error, int status);
  void end(int status, std::string error = {});
  void cancel_all();
  api::Usage usage() const;

  Tools tools_;
  TaskPlan plan_;
  http::ResponderPtr responder_;
  OnEnd on_end_;
  Clock::time_point start_;

  std::mutex queue_mutex_;  // of what follows
  std::deque<Arrival> arrivals_;
  bool is_working_ = false;

  std::mutex mutex_;  // of what follows
  std::vector<Choice> choices_;
  std::size_t num_ended_ = 0;
  std::vector<std::int64_t> cached_;  // tokens of each prompt
  bool is_over_ = false;
  bool has_begun_ = false;  // the head of a stream is out
  bool has_first_ = false;
  bool is_paused_ = false;
  double seconds_to_first_ = 0;
  Clock::time_point last_write_, paused_since_;
};

}  // namespace quiver::serve
