// Accepts connections and keeps them. One thread runs everything here, and the coroutine of each connection.
#include "quiver/http/server.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <set>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/http/connection.h"
#include "quiver/http/message.h"
#include "quiver/http/transport.h"

namespace quiver::http {

namespace {

using asio::redirect_error;
using asio::use_awaitable;
using namespace std::chrono_literals;

constexpr auto kAcceptPause = 100ms;  ///< after an accept that failed for want of descriptors or memory

/// A function that is called again and again.
struct Ticker : std::enable_shared_from_this<Ticker> {
  Ticker(asio::io_context& io, std::chrono::milliseconds time, std::function<void()> call)
      : timer(io), period(time), function(std::move(call)) {}

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
      } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): no memory; this client is lost, the others are not
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
  const auto connection = make_connection(*this, std::move(transport), peer);
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
  const std::string bytes =
      answer_head(
          {.status = response.status, .content_type = response.content_type, .content_length = response.body.size(), .keeps_alive = false},
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
    ErrorCode error;
    socket.assign(tcp::v4(), descriptor, error);
    if (error) {
      ::close(descriptor);
    } else if (!state->is_stopped) {
      state->start(std::move(socket));
    }
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
