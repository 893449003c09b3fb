// The one source that includes Boost: Asio's coroutines and Beast's parser cost seconds to compile.
//
// One thread runs everything here. A connection is a coroutine, Connection::serve. A second coroutine reads from its client while an
// answer is awaited or sent, so that a client that goes is noticed at once.
#include "quiver/http/server.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <exception>
#include <optional>
#include <set>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/http/exchange.h"
#include "quiver/http/message.h"
#include "quiver/http/request_parser.h"
#include "quiver/http/transport.h"

namespace quiver::http {

namespace {

using asio::redirect_error;
using asio::use_awaitable;
using namespace std::chrono_literals;

constexpr std::size_t kWaitingBytes = 512;      ///< space for a read while nothing is expected: what an idle connection holds
constexpr std::size_t kHeadBytes = 4096;        ///< space for a read within a head
constexpr std::size_t kBodyBytes = 64 * 1024;   ///< space for a read within a body
constexpr std::size_t kRecordBytes = 64 * 1024;  ///< most bytes of one write
constexpr auto kLinger = 1000ms;                ///< for the client to read the last answer and to close
constexpr std::size_t kMaxDiscarded = 16 << 20;  ///< bytes that are read and thrown away meanwhile
constexpr auto kAcceptPause = 100ms;            ///< after an accept that failed for want of descriptors or memory

class Connection;

/// What the connections of a server share. Of the server's thread, but for the counters.
struct Service {
  Handlers handlers;
  Limits limits;
  asio::io_context io{1};
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>([this](Mailbox::Function f) { asio::post(io, std::move(f)); });
  std::set<Connection*> connections = {};
  std::map<std::string, std::size_t> connections_of_address = {};
  std::atomic<std::uint64_t> num_connections = 0, accepted = 0, refused = 0;

  bool is_draining() const { return mailbox->is_draining; }
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Service& service, std::unique_ptr<Transport> transport, std::string peer)
      : service_(service), limits_(service.limits), transport_(std::move(transport)), peer_(std::move(peer)), deadline_(service.io), wake_(service.io) {}

  /// Serves requests until the connection ends.
  asio::awaitable<void> serve();
  /// Closes the connection if no request has begun.
  void close_if_idle() {
    if (is_idle_) transport_->cancel();
  }
  /// Cuts the connection off.
  void cut() {
    is_gone_ = true;
    transport_->close();
    wake();
  }
  const std::string& peer() const { return peer_; }

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
  std::function<void()> on_this(void (Connection::*member)()) {
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
  boost::beast::flat_buffer input_;  ///< bytes that no request has used yet
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

void Connection::set_deadline(std::chrono::milliseconds time) {
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

void Connection::clear_deadline() {
  has_deadline_ = false;
  deadline_.cancel();
}

asio::awaitable<ErrorCode> Connection::read_more(std::size_t most) {
  const Transferred done = co_await transport_->read_some(input_.prepare(most));
  input_.commit(done.num_bytes);
  co_return done.error;
}

asio::awaitable<bool> Connection::write_all(std::string_view bytes, Exchange* exchange) {
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

asio::awaitable<void> Connection::wait_for_wake() {
  ErrorCode ignored;
  wake_.expires_at(asio::steady_timer::time_point::max());
  co_await wake_.async_wait(redirect_error(use_awaitable, ignored));
}

asio::awaitable<void> Connection::serve() {
  Next next = Next::kCut;
  try {
    set_deadline(limits_.header_timeout);
    const ErrorCode error = co_await transport_->handshake();
    if (!error && !is_expired_) next = Next::kRequest;
    while (next == Next::kRequest) next = co_await serve_request();
    if (next == Next::kFinish && !is_gone_) co_await linger();
  } catch (const std::exception&) {  // no memory, say: this connection ends, the others go on
  }
  clear_deadline();
  transport_->close();
}

asio::awaitable<Connection::Next> Connection::serve_request() {
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
          .wake = on_this(&Connection::wake),
          .cut = on_this(&Connection::cut),
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
asio::awaitable<bool> Connection::wait_for_request() {
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
void Connection::skip_empty_lines() {
  while (input().starts_with("\r\n")) input_.consume(2);
}

asio::awaitable<std::optional<Fault>> Connection::read_head(RequestParser& parser) {
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

asio::awaitable<std::optional<Fault>> Connection::read_body(RequestParser& parser, std::size_t max_bytes) {
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
asio::awaitable<std::optional<Fault>> Connection::allow_body(const RequestParser& parser) {
  const std::string_view expected = parser.request.header("expect");
  if (expected.empty() || is_http_1_0_) co_return std::nullopt;
  if (!equal_ignoring_case(expected, "100-continue")) co_return Fault{417, "the one expectation that is met is 100-continue"};
  if (input_.size() > 0) co_return std::nullopt;  // it has begun already
  const bool is_sent = co_await write_all("HTTP/1.1 100 Continue\r\n\r\n");
  if (!is_sent) co_return Fault{};
  co_return std::nullopt;
}

asio::awaitable<Connection::Next> Connection::refuse(Fault fault) {
  if (fault.status == 0 || is_gone_) co_return Next::kCut;
  co_return co_await answer_with(service_.handlers.refuse(fault.status, fault.message), /*keeps_alive=*/false);
}

asio::awaitable<Connection::Next> Connection::answer_with(Response response, bool keeps_alive) {
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
asio::awaitable<Connection::Next> Connection::answer(std::shared_ptr<Exchange> exchange, std::string failure) {
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

void Connection::start_watching() {
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
asio::awaitable<void> Connection::watch() {
  while (!is_answered_ && input_.size() < limits_.max_header_bytes) {
    const ErrorCode error = co_await read_more(kWaitingBytes);
    if (is_answered_) co_return;
    if (!error) continue;
    is_gone_ = true;
    transport_->cancel();
    co_return;  // the completion wakes answer()
  }
}

asio::awaitable<void> Connection::stop_watching() {
  is_answered_ = true;
  if (is_watching_) transport_->cancel();
  while (is_watching_) co_await wait_for_wake();
}

/// Ends the connection so that the client gets the whole answer: a socket that is closed with unread bytes sends a reset, which overtakes it.
asio::awaitable<void> Connection::linger() {
  set_deadline(kLinger);
  co_await transport_->finish();
  ErrorCode error;
  for (std::size_t discarded = 0; !error && !is_expired_ && !is_gone_ && discarded < kMaxDiscarded;) {
    input_.clear();
    discarded += co_await transport_->socket().async_read_some(input_.prepare(kHeadBytes), redirect_error(use_awaitable, error));
  }
}

/// A function that is called again and again.
struct Ticker : std::enable_shared_from_this<Ticker> {
  Ticker(asio::io_context& io, std::chrono::milliseconds time, std::function<void()> call) : timer(io), period(time), function(std::move(call)) {}

  void start() {
    timer.expires_after(period);
    timer.async_wait([self = shared_from_this()](const ErrorCode& error) {
      if (error || self->is_stopped) return;
      self->function();
      self->start();
    });
  }
  void stop() {
    is_stopped = true;
    timer.cancel();
  }

  asio::steady_timer timer;
  const std::chrono::milliseconds period;
  const std::function<void()> function;
  bool is_stopped = false;
};

asio::ip::address address_of(const std::string& text) {
  ErrorCode error;
  const auto address = asio::ip::make_address(text, error);
  if (error) fail(ErrorKind::kUsage, "'{}' is no IPv4 or IPv6 address; expected one such as 127.0.0.1 or ::1", text);
  return address;
}

/// The address of a connected socket's other end, or "" where it has none.
std::string peer_of(tcp::socket& socket) {
  ErrorCode error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error || (endpoint.data()->sa_family != AF_INET && endpoint.data()->sa_family != AF_INET6)) return "";
  const auto address = endpoint.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  }
  return address.to_string();
}

Handlers with_defaults(Handlers handlers) {
  if (!handlers.handle) fail(ErrorKind::kUsage, "an HTTP server needs a function that handles requests");
  if (!handlers.check) handlers.check = [](const RequestHead&) { return std::nullopt; };
  if (!handlers.body_limit) handlers.body_limit = [](const RequestHead&) { return std::size_t{1} << 20; };
  if (!handlers.refuse) {
    handlers.refuse = [](int status, std::string_view message) {
      return Response{.status = status, .body = std::string(message) + "\n", .content_type = "text/plain; charset=utf-8"};
    };
  }
  return handlers;
}

}  // namespace

struct Server::State : Service {
  State(const ServerOptions& options, Handlers functions) : work(io.get_executor()), acceptor(io), accept_pause(io) {
    handlers = with_defaults(std::move(functions));
    limits = options.limits;
    if (options.tls_certificate.empty() != options.tls_key.empty()) fail(ErrorKind::kUsage, "TLS needs both a certificate and a key");
    if (!options.tls_key.empty()) tls = tls_context(options.tls_certificate, options.tls_key);
    listen({address_of(options.address), options.port});
    asio::co_spawn(io, accept_connections(), rethrow);
  }

  static void rethrow(const std::exception_ptr& error) {
    if (error) std::rethrow_exception(error);
  }
  void listen(const tcp::endpoint& endpoint);
  asio::awaitable<void> accept_connections();
  /// Serves a connected socket, or refuses it.
  void start(tcp::socket socket);
  void refuse(tcp::socket socket);
  void close_listener();
  void stop();

  asio::executor_work_guard<asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  asio::steady_timer accept_pause;
  std::unique_ptr<asio::ssl::context> tls;
  std::set<std::shared_ptr<Ticker>> tickers;
  std::uint16_t port = 0;
  bool is_stopped = false;
};

void Server::State::listen(const tcp::endpoint& endpoint) {
  try {
    acceptor.open(endpoint.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(endpoint);
    acceptor.listen();
    port = acceptor.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    fail(ErrorKind::kIo, "cannot listen on {} port {}: {}", endpoint.address().to_string(), endpoint.port(), error.code().message());
  }
}

asio::awaitable<void> Server::State::accept_connections() {
  while (acceptor.is_open()) {
    tcp::socket socket(io);
    ErrorCode error;
    co_await acceptor.async_accept(socket, redirect_error(use_awaitable, error));
    if (!error) {
      try {
        start(std::move(socket));
      } catch (const std::exception&) {  // no memory: this client is lost, the others are not
      }
    } else if (error == asio::error::no_descriptors || error == boost::system::errc::too_many_files_open_in_system ||
               error == asio::error::no_buffer_space || error == asio::error::no_memory) {
      accept_pause.expires_after(kAcceptPause);
      co_await accept_pause.async_wait(redirect_error(use_awaitable, error));
    }  // any other error is of one connection that has gone already
  }
}

void Server::State::start(tcp::socket socket) {
  ++accepted;
  ErrorCode ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const std::string peer = peer_of(socket);
  std::size_t& of_address = connections_of_address[peer];
  if (connections.size() >= limits.max_connections || of_address >= limits.max_connections_per_address) return refuse(std::move(socket));
  std::unique_ptr<Transport> transport;
  if (tls) {
    transport = std::make_unique<TlsTransport>(std::move(socket), *tls);
  } else {
    transport = std::make_unique<PlainTransport>(std::move(socket));
  }
  const auto connection = std::make_shared<Connection>(*this, std::move(transport), peer);
  connections.insert(connection.get());
  ++of_address;
  ++num_connections;
  asio::co_spawn(io, connection->serve(), [this, connection](const std::exception_ptr& error) {
    connections.erase(connection.get());
    const auto of_peer = connections_of_address.find(connection->peer());
    if (--of_peer->second == 0) connections_of_address.erase(of_peer);
    --num_connections;
    rethrow(error);
  });
}

void Server::State::refuse(tcp::socket socket) {
  ++refused;
  const auto of_peer = connections_of_address.find(peer_of(socket));
  if (of_peer != connections_of_address.end() && of_peer->second == 0) connections_of_address.erase(of_peer);
  if (tls) return;  // an answer would need a handshake
  const Response response = handlers.refuse(503, "there are too many connections");
  const std::string bytes = answer_head({.status = response.status,
                                         .content_type = response.content_type,
                                         .content_length = response.body.size(),
                                         .keeps_alive = false},
                                        response.headers) +
                            response.body;
  ErrorCode ignored;
  socket.non_blocking(true, ignored);
  socket.send(asio::buffer(bytes), 0, ignored);  // fits the empty buffer of a new socket
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void Server::State::close_listener() {
  mailbox->is_draining = true;
  ErrorCode ignored;
  acceptor.close(ignored);
  accept_pause.cancel();
  for (Connection* connection : connections) connection->close_if_idle();
}

void Server::State::stop() {
  is_stopped = true;
  close_listener();
  for (Connection* connection : connections) connection->cut();
  for (const auto& ticker : tickers) ticker->stop();
  tickers.clear();
  work.reset();
}

Server::Server(const ServerOptions& options, Handlers handlers) : state_(std::make_unique<State>(options, std::move(handlers))) {}

Server::~Server() {
  state_->stop();
  state_->io.restart();
  state_->io.run();  // lets every coroutine end
  state_->mailbox->close();
}

std::uint16_t Server::port() const { return state_->port; }

void Server::run() { state_->io.run(); }

void Server::poll() { state_->io.poll(); }

void Server::adopt(int descriptor) {
  state_->mailbox->post([state = state_.get(), descriptor] {
    tcp::socket socket(state->io);
    socket.assign(tcp::v4(), descriptor);
    if (!state->is_stopped) state->start(std::move(socket));
  });
}

void Server::close_listener() {
  state_->mailbox->post([state = state_.get()] { state->close_listener(); });
}

void Server::stop() {
  state_->mailbox->post([state = state_.get()] { state->stop(); });
}

void Server::post(std::function<void()> function) { state_->mailbox->post(std::move(function)); }

void Server::every(std::chrono::milliseconds period, std::function<void()> function) {
  const auto ticker = std::make_shared<Ticker>(state_->io, period, std::move(function));
  state_->mailbox->post([state = state_.get(), ticker] {
    if (state->is_stopped) return;
    state->tickers.insert(ticker);
    ticker->start();
  });
}

ServerCounts Server::counts() const {
  return {.num_connections = state_->num_connections, .accepted = state_->accepted, .refused = state_->refused};
}

}  // namespace quiver::http
