// The answer to one request, between the threads that give it and the server's thread, which sends it.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "quiver/http/message.h"
#include "quiver/http/server.h"

namespace quiver::http {

/// Takes functions to the server's thread while there is a server. Thread-safe.
class Mailbox {
 public:
  using Function = std::function<void()>;

  explicit Mailbox(std::function<void(Function)> deliver) : deliver_(std::move(deliver)) {}

  /// Does nothing after close().
  void post(Function function);
  void close();

  /// Whether connections close after the answer that they send.
  std::atomic<bool> is_draining = false;

 private:
  std::mutex mutex_;
  std::function<void(Function)> deliver_;
};

struct ExchangeOptions {
  bool is_head = false;  ///< the request's method is HEAD
  bool is_http_1_0 = false;
  bool keeps_alive = true;  ///< the connection may take another request
  std::size_t max_pending_bytes = 0;
  // Called on the server's thread:
  std::function<void()> wake;  ///< there is something to take
  std::function<void()> cut;   ///< more is pending than the limit allows, and the socket may be taking nothing
};

/// Frames an answer and keeps its bytes until the socket takes them. The members of Responder may be called by any thread.
class Exchange : public Responder, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(ExchangeOptions options, std::shared_ptr<Mailbox> mailbox) : options_(std::move(options)), mailbox_(std::move(mailbox)) {}

  /// The responder of this exchange. The exchange counts as dropped when the last copy is gone. Call it once.
  ResponderPtr responder();

  void send(Response response) override;
  void begin_stream(int status, std::string content_type, Headers headers) override;
  bool write(std::string chunk) override;
  void end() override;
  std::size_t pending_bytes() const override;
  bool is_open() const override;
  void on_gone(std::function<void()> call) override;

  enum class Stage {
    kUnanswered,
    kStreaming,
    kEnded,
    kDropped,    ///< the last responder went before it had answered
    kCut,        ///< the last responder went in the middle of a stream
    kTooSlow,    ///< more is pending than the limit allows
    kClientGone  ///< nothing can be sent any more
  };
  struct Output {
    std::string bytes;  ///< to be sent now; they count as pending until taken() says otherwise
    Stage stage = Stage::kUnanswered;
  };
  /// The bytes that are ready, and how things stand after them. For the server's thread, like all below.
  Output take();
  void taken(std::size_t num_bytes);
  /// Calls the function of on_gone unless the answer has ended.
  void client_gone();
  /// Whether the connection may take another request after this answer.
  bool keeps_alive() const;

 private:
  void drop();
  void require(Stage stage, std::string_view call) const;
  /// Begins an answer: appends its head.
  void begin(int status, std::string_view content_type, const Headers& headers, Framing framing, std::size_t content_length);
  void wake();

  const ExchangeOptions options_;
  const std::shared_ptr<Mailbox> mailbox_;
  mutable std::mutex mutex_;
  Stage stage_ = Stage::kUnanswered;
  Framing framing_ = Framing::kLength;
  bool keeps_alive_ = true;  ///< as the head of the answer has said
  bool is_woken_ = false;    ///< a call of `wake` is on its way
  std::string ready_;
  std::size_t in_flight_ = 0;  ///< bytes that take() gave and the socket has not taken
  std::function<void()> on_gone_;
};

}  // namespace quiver::http
