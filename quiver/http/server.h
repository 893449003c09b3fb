// An HTTP/1.1 server for one program's own API. Boost stays inside the sources.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::http {

/// What stands before the body of a request.
struct RequestHead {
  std::string method;                          ///< "GET"
  std::string path;                            ///< percent-decoded, begins with "/", valid UTF-8 without control characters
  std::map<std::string, std::string> query;    ///< percent-decoded, "+" as a space, valid UTF-8; of a name that comes twice, the last
  std::map<std::string, std::string> headers;  ///< names in lower case; values are bytes; of a name that comes twice, joined by ", "
  std::string peer;                            ///< the client's address, without its port
  std::optional<std::uint64_t> content_length;

  /// The value of a header by its name in lower case, or "".
  std::string_view header(std::string_view name) const;
};

struct Request : RequestHead {
  std::string body;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

/// A whole answer. Content-Length, Connection and Date are the server's.
struct Response {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers = {};
};

/// Answers one request, once: send, or begin_stream with any number of writes and an end. Thread-safe; calls never block. Calls after the
/// client has gone do nothing. A responder that is dropped without an answer sends a 500, or cuts the stream off without its last chunk.
/// Calls out of order throw kUsage, and so do a status outside 200 to 599 and headers that are malformed or the server's own.
/// A client that shuts down its side of the connection counts as gone.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void send(Response response) = 0;
  /// Sends the head of a chunked answer.
  virtual void begin_stream(int status, std::string content_type, Headers headers = {}) = 0;
  /// Sends a chunk; an empty one does nothing. False if the client has gone, or reads too slowly (Limits::max_pending_bytes).
  virtual bool write(std::string chunk) = 0;
  virtual void end() = 0;
  /// Bytes of the answer, with their framing, that the socket has not taken yet: what a slow reader leaves.
  virtual std::size_t pending_bytes() const = 0;
  /// Whether the client is there, as far as is known.
  virtual bool is_open() const = 0;
  /// Called once on the server's thread, if the client goes before the answer has ended; at once if it has gone. It must not throw. A
  /// second call replaces the function. A function that holds this responder keeps it until the answer ends or the client goes.
  virtual void on_gone(std::function<void()> call) = 0;
};
using ResponderPtr = std::shared_ptr<Responder>;

/// What a program does with requests. All are called on the server's thread and must not block: long work goes to other threads. What
/// `check`, `body_limit` or `handle` throws becomes refuse(500, what()).
struct Handlers {
  /// Before the body is read: an answer refuses the request, and the connection closes after it if there is a body. Nothing goes on.
  /// Without this function all requests pass.
  std::function<std::optional<Response>(const RequestHead&)> check;
  /// The largest body that a request may have, in bytes; 1 MiB without this function. Called before `check`, for requests with a body.
  std::function<std::size_t(const RequestHead&)> body_limit;
  std::function<void(Request, ResponderPtr)> handle;  ///< must be given
  /// The answer to what is no request at all or breaks a limit (400, 408, 413, 417, 431, 500, 501, 503, 505): `message` says why. So that a
  /// program's errors have one form. Without this function the message is plain text.
  std::function<Response(int status, std::string_view message)> refuse;
};

struct Limits {
  std::size_t max_header_bytes = 16 * 1024;
  std::size_t max_headers = 100;                   ///< in number
  std::size_t max_connections = 1024;              ///< further ones are answered 503 and closed
  std::size_t max_connections_per_address = 1024;  ///< of one client
  std::size_t max_requests_per_connection = 100000;
  std::size_t max_pending_bytes = 64 << 20;          ///< a connection whose client leaves more unread is closed
  std::chrono::milliseconds header_timeout{10'000};  ///< of a whole head; of a new connection, until its first byte; of a TLS handshake
  std::chrono::milliseconds body_timeout{30'000};    ///< of a whole body
  std::chrono::milliseconds idle_timeout{60'000};    ///< between two requests
  std::chrono::milliseconds write_timeout{30'000};   ///< without any byte taken by the client
};

struct ServerOptions {
  std::string address = "127.0.0.1";     ///< an IPv4 or IPv6 address
  std::uint16_t port = 0;                ///< 0: any that is free
  std::string tls_certificate, tls_key;  ///< PEM files; both or none
  Limits limits;
};

struct ServerCounts {
  std::uint64_t num_connections = 0;  ///< open now
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  ///< connections beyond a limit
};

/// Listens from construction on; serves while one thread is in run(). That thread must have left run() before the server is destroyed.
/// Responders may outlive it.
class Server {
 public:
  /// Throws kIo, naming address and port, if these cannot be had; kUsage for what is no address; kNotFound and kBadFormat for PEM files.
  Server(const ServerOptions& options, Handlers handlers);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::uint16_t port() const;
  /// Serves until stop(). Call it from one thread. An exception of a function of post or every leaves it, and run() may be called again.
  void run();
  /// Does what can be done now, and returns. For a program with a loop of its own, instead of run().
  void poll();
  /// Serves a connected stream socket as one that was accepted. The descriptor is the server's from now on. Thread-safe.
  void adopt(int descriptor);
  /// No further connection is accepted, and those without a request in flight close: at once, or after the answer. Thread-safe.
  void close_listener();
  /// Ends run(): all connections are cut, for good. Thread-safe.
  void stop();
  /// Runs a function on the server's thread, soon. Thread-safe.
  void post(std::function<void()> function);
  /// Runs a function on the server's thread every `period`, until stop(). Thread-safe.
  void every(std::chrono::milliseconds period, std::function<void()> function);
  /// Thread-safe.
  ServerCounts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quiver::http
