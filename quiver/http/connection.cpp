// One coroutine serves a client, HttpConnection::serve. A second one reads from it while an answer is awaited or sent, so that a client
// that goes is noticed at once.
#include "quiver/http/connection.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <optional>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/http/message.h"
#include "quiver/http/request_parser.h"

// GCC 12 takes the operators new and delete of Asio's coroutine frames for a mismatched pair where one coroutine is inlined into another.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace quiver::http {

namespace {

using asio::redirect_error;
using asio::use_awaitable;
using namespace std::chrono_literals;

constexpr std::size_t kWaitingBytes = 512;       ///< space for a read while nothing is expected: what an idle connection holds
constexpr std::size_t kHeadBytes = 4096;         ///< space for a read within a head
constexpr std::size_t kBodyBytes = 64 * 1024;    ///< space for a read within a body
constexpr std::size_t kRecordBytes = 64 * 1024;  ///< most bytes of one write
constexpr auto kLinger = 1000ms;                 ///< for the client to read the last answer and to close
constexpr std::size_t kMaxDiscarded = 16 << 20;  ///< bytes that are read and thrown away meanwhile

class HttpConnection final : public Connection, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(Service& service, std::unique_ptr<Transport> transport, std::string peer)
      : service_(service),
        limits_(service.limits),
        transport_(std::move(transport)),
        peer_(std::move(peer)),
        deadline_(service.io),
        wake_(service.io) {}

  asio::awaitable<void> serve() override;
  void close_if_idle() override {
    if (is_idle_) transport_->cancel();
  }
  void cut() override {
    is_gone_ = true;
    transport_->close();
    wake();
  }
  const std::string& peer() const override { return peer_; }

 private:
  enum class Next { kRequest, kFinish, kCut };  ///< what follows an answer: another request, an orderly end, or none

  asio::awaitable<Next> serve_request();
  asio::awaitable<bool> wait_for_request();
  asio::awaitable<std::optional<Fault>> read_head(RequestParser& parser);
  asio::awaitable<std::optional<Fault>> read_body(RequestParser& parser, std::size_t max_bytes);
  asio::awaitable<std::optional<Fault>> allow_body(const RequestParser& parser);
  asio::awaitable<Next> answer(std::shared_ptr<Exchange> exchange, std::string failure);
  asio::awaitable<Next> answer_with(Response response, bool keeps_alive);
  asio::awaitable<Next> refuse(Fault fault);
  asio::awaitable<void> watch();
  void start_watching();
  asio::awaitable<void> stop_watching();
  asio::awaitable<void> linger();

  asio::awaitable<ErrorCode> read_more(std::size_t most);
  asio::awaitable<bool> write_all(std::string_view bytes, Exchange* exchange = nullptr);
  asio::awaitable<void> wait_for_wake();
  void wake() { wake_.cancel(); }
  /// A call of a member function, if the connection is still there.
  std::function<void()> on_this(void (HttpConnection::*member)()) {
    return [weak = weak_from_this(), member] {
      if (const auto self = weak.lock()) (self.get()->*member)();
    };
  }
  void skip_empty_lines();
  std::string_view input() const { return {static_cast<const char*>(input_.data().data()), input_.size()}; }
  /// Ends reads and writes after a time. There is one such deadline at a time.
  void set_deadline(std::chrono::milliseconds time);
  void clear_deadline();

  Service& service_;
  const Limits& limits_;
  const std::unique_ptr<Transport> transport_;
  const std::string peer_;
  InputBuffer input_;
  asio::steady_timer deadline_;
  asio::steady_timer wake_;  ///< never ends by itself: who cancels it wakes the coroutine
  bool has_deadline_ = false;
  bool is_expired_ = false;
  bool is_idle_ = false;
  bool is_gone_ = false;  ///< the client, or the connection by order of the server
  bool is_watching_ = false;
  bool is_answered_ = true;
  std::size_t num_requests_ = 0;
  // Of the request that is being answered.
  bool is_head_ = false;
  bool is_http_1_0_ = false;
};

void HttpConnection::set_deadline(std::chrono::milliseconds time) {
  has_deadline_ = true;
  is_expired_ = false;
  deadline_.expires_after(time);
  deadline_.async_wait([self = shared_from_this()](const ErrorCode& error) {
    // A timer that has run out calls this even if it was set anew before the call.
    if (error || !self->has_deadline_ || self->deadline_.expiry() > std::chrono::steady_clock::now()) return;
    self->is_expired_ = true;
    self->transport_->cancel();
  });
}

void HttpConnection::clear_deadline() {
  has_deadline_ = false;
  deadline_.cancel();
}

asio::awaitable<ErrorCode> HttpConnection::read_more(std::size_t most) {
  const Transferred done = co_await transport_->read_some(input_.prepare(most));
  input_.commit(done.num_bytes);
  co_return done.error;
}

asio::awaitable<bool> HttpConnection::write_all(std::string_view bytes, Exchange* exchange) {
  while (!bytes.empty()) {
    set_deadline(limits_.write_timeout);
    const std::string_view part = bytes.substr(0, kRecordBytes);
    const Transferred done = co_await transport_->write_some(asio::buffer(part.data(), part.size()));
    if (exchange) exchange->taken(done.num_bytes);
    if (done.error || is_expired_ || is_gone_) co_return false;
    bytes.remove_prefix(done.num_bytes);
  }
  clear_deadline();
  co_return true;
}

asio::awaitable<void> HttpConnection::wait_for_wake() {
  ErrorCode ignored;
  wake_.expires_at(asio::steady_timer::time_point::max());
  co_await wake_.async_wait(redirect_error(use_awaitable, ignored));
}

asio::awaitable<void> HttpConnection::serve() {
  Next next = Next::kCut;
  try {
    set_deadline(limits_.header_timeout);
    const ErrorCode error = co_await transport_->handshake();
    if (!error && !is_expired_) next = Next::kRequest;
    while (next == Next::kRequest) next = co_await serve_request();
    if (next == Next::kFinish && !is_gone_) co_await linger();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): no memory, say; this connection ends, the others go on
  }
  clear_deadline();
  transport_->close();
}

asio::awaitable<HttpConnection::Next> HttpConnection::serve_request() {
  const bool has_begun = co_await wait_for_request();
  if (!has_begun) co_return Next::kCut;
  ++num_requests_;
  RequestParser parser(limits_);
  parser.request.peer = peer_;
  auto fault = co_await read_head(parser);
  Request& request = parser.request;
  is_head_ = request.method == "HEAD";
  is_http_1_0_ = parser.is_http_1_0();
  if (fault) co_return co_await refuse(std::move(*fault));

  const Handlers& handlers = service_.handlers;
  const bool keeps_alive = parser.keep_alive() && num_requests_ < limits_.max_requests_per_connection;
  std::size_t max_body_bytes = 0;
  std::optional<Response> refusal;
  try {
    if (parser.has_body()) max_body_bytes = handlers.body_limit(request);
    if (request.content_length.value_or(0) > max_body_bytes) {
      fault = Fault{413, format("the body is of {} bytes, longer than {}", *request.content_length, max_body_bytes)};
    } else {
      refusal = handlers.check(request);
    }
  } catch (const std::exception& error) {
    fault = Fault{500, error.what()};
  }
  if (fault) co_return co_await refuse(std::move(*fault));
  if (refusal) co_return co_await answer_with(std::move(*refusal), keeps_alive && !parser.has_body());
  if (parser.has_body()) {
    fault = co_await allow_body(parser);
    if (!fault) fault = co_await read_body(parser, max_body_bytes);
    if (fault) co_return co_await refuse(std::move(*fault));
  }

  const auto exchange = std::make_shared<Exchange>(
      ExchangeOptions{
          .is_head = is_head_,
          .is_http_1_0 = is_http_1_0_,
          .keeps_alive = keeps_alive,
          .max_pending_bytes = limits_.max_pending_bytes,
          .wake = on_this(&HttpConnection::wake),
          .cut = on_this(&HttpConnection::cut),
      },
      service_.mailbox);
  std::string failure = "the program gave no answer";
  try {
    handlers.handle(std::move(request), exchange->responder());
  } catch (const std::exception& error) {  // it has dropped the responder
    failure = error.what();
  }
  co_return co_await answer(exchange, std::move(failure));
}

/// Waits for the first byte of a request. False: the connection ends.
asio::awaitable<bool> HttpConnection::wait_for_request() {
  set_deadline(num_requests_ == 0 ? limits_.header_timeout : limits_.idle_timeout);
  is_idle_ = true;
  for (skip_empty_lines(); input_.size() == 0 || input() == "\r"; skip_empty_lines()) {
    if (service_.is_draining() || is_gone_) co_return false;
    if (input_.size() == 0) input_.shrink_to_fit();
    const ErrorCode error = co_await read_more(kWaitingBytes);
    if (error || is_expired_) co_return false;
  }
  is_idle_ = false;
  co_return true;
}

/// Some clients send an empty line after a body. RFC 9112, 2.2: ignore it.
void HttpConnection::skip_empty_lines() {
  while (input().starts_with("\r\n")) input_.consume(2);
}

asio::awaitable<std::optional<Fault>> HttpConnection::read_head(RequestParser& parser) {
  set_deadline(limits_.header_timeout);
  for (;;) {
    while (input_.size() > 0) {
      const std::size_t used = parser.feed_head(input());
      input_.consume(used);
      if (parser.fault()) co_return parser.fault();
      if (parser.is_header_done()) co_return std::nullopt;
      if (used == 0) break;
    }
    const ErrorCode error = co_await read_more(kHeadBytes);
    if (is_expired_) co_return Fault{408, "the head of the request did not come in time"};
    if (error) co_return Fault{};
  }
}

asio::awaitable<std::optional<Fault>> HttpConnection::read_body(RequestParser& parser, std::size_t max_bytes) {
  set_deadline(limits_.body_timeout);
  for (;;) {
    while (input_.size() > 0) {
      const std::size_t used = parser.feed_body(input(), max_bytes);
      input_.consume(used);
      if (parser.fault()) co_return parser.fault();
      if (parser.is_done()) co_return std::nullopt;
      if (used == 0) break;
    }
    if (input_.size() >= limits_.max_header_bytes) co_return Fault{400, "a line between chunks of the body is too long"};
    const ErrorCode error = co_await read_more(kBodyBytes);
    if (is_expired_) co_return Fault{408, "the body of the request did not come in time"};
    if (error) co_return Fault{};
  }
}

/// Tells a client that asks that it may send the body.
asio::awaitable<std::optional<Fault>> HttpConnection::allow_body(const RequestParser& parser) {
  const std::string_view expected = parser.request.header("expect");
  if (expected.empty() || is_http_1_0_) co_return std::nullopt;
  if (!equal_ignoring_case(expected, "100-continue")) co_return Fault{417, "the one expectation that is met is 100-continue"};
  if (input_.size() > 0) co_return std::nullopt;  // it has begun already
  const bool is_sent = co_await write_all("HTTP/1.1 100 Continue\r\n\r\n");
  if (!is_sent) co_return Fault{};
  co_return std::nullopt;
}

asio::awaitable<HttpConnection::Next> HttpConnection::refuse(Fault fault) {
  if (fault.status == 0 || is_gone_) co_return Next::kCut;
  co_return co_await answer_with(service_.handlers.refuse(fault.status, fault.message), /*keeps_alive=*/false);
}

asio::awaitable<HttpConnection::Next> HttpConnection::answer_with(Response response, bool keeps_alive) {
  keeps_alive = keeps_alive && !service_.is_draining();
  std::string bytes = answer_head({.status = response.status,
                                   .content_type = response.content_type,
                                   .framing = has_no_body(response.status) ? Framing::kBodiless : Framing::kLength,
                                   .content_length = response.body.size(),
                                   .keeps_alive = keeps_alive,
                                   .is_http_1_0 = is_http_1_0_},
                                  response.headers);
  if (!is_head_ && !has_no_body(response.status)) bytes += response.body;
  const bool is_sent = co_await write_all(bytes);
  if (!is_sent) co_return Next::kCut;
  co_return keeps_alive ? Next::kRequest : Next::kFinish;
}

/// Sends what the exchange gives, until the answer ends or the client goes. A responder that is dropped is answered with `failure`.
asio::awaitable<HttpConnection::Next> HttpConnection::answer(std::shared_ptr<Exchange> exchange, std::string failure) {
  using Stage = Exchange::Stage;
  clear_deadline();
  is_answered_ = false;
  Next next = Next::kCut;
  bool has_watched = false;
  for (bool is_sent = true; is_sent && !is_gone_;) {
    const Exchange::Output output = exchange->take();
    const bool is_last = output.stage != Stage::kUnanswered && output.stage != Stage::kStreaming;
    if (!is_last && !has_watched) {
      has_watched = true;
      start_watching();
    }
    if (output.stage == Stage::kTooSlow || output.stage == Stage::kClientGone) break;
    if (!output.bytes.empty()) {
      is_sent = co_await write_all(output.bytes, exchange.get());
    } else if (!is_last) {
      co_await wait_for_wake();
    } else {
      if (output.stage == Stage::kEnded) next = exchange->keeps_alive() ? Next::kRequest : Next::kFinish;
      if (output.stage == Stage::kDropped) {
        Fault fault{500, std::move(failure)};  // GCC 12 destroys an aggregate twice that is made within co_await
        next = co_await refuse(std::move(fault));
      }
      break;
    }
  }
  if (next == Next::kCut) exchange->client_gone();
  co_await stop_watching();
  co_return next;
}

void HttpConnection::start_watching() {
  is_watching_ = true;
  input_.shrink_to_fit();
  asio::co_spawn(service_.io, watch(), [self = shared_from_this()](const std::exception_ptr& error) {
    if (error) self->cut();  // no memory
    self->is_watching_ = false;
    self->wake();
  });
}

/// Reads while an answer is awaited or sent. The bytes are kept for the next request. A client that has sent a whole head more than it
/// got answers for is read from no further, and is not noticed when it goes.
asio::awaitable<void> HttpConnection::watch() {
  while (!is_answered_ && input_.size() < limits_.max_header_bytes) {
    const ErrorCode error = co_await read_more(kWaitingBytes);
    if (is_answered_) co_return;
    if (!error) continue;
    is_gone_ = true;
    transport_->cancel();
    co_return;  // the completion wakes answer()
  }
}

asio::awaitable<void> HttpConnection::stop_watching() {
  is_answered_ = true;
  if (is_watching_) transport_->cancel();
  while (is_watching_) co_await wait_for_wake();
}

/// Ends the connection so that the client gets the whole answer: a socket that is closed with unread bytes sends a reset, which overtakes
/// it.
asio::awaitable<void> HttpConnection::linger() {
  set_deadline(kLinger);
  co_await transport_->finish();
  ErrorCode error;
  for (std::size_t discarded = 0; !error && !is_expired_ && !is_gone_ && discarded < kMaxDiscarded;) {
    input_.clear();
    discarded += co_await transport_->socket().async_read_some(input_.prepare(kHeadBytes), redirect_error(use_awaitable, error));
  }
}

}  // namespace

std::shared_ptr<Connection> make_connection(Service& service, std::unique_ptr<Transport> transport, std::string peer) {
  return std::make_shared<HttpConnection>(service, std::move(transport), std::move(peer));
}

}  // namespace quiver::http
