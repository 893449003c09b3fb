// A server on a thread of its own, and a client whose every byte is the test's.
#pragma once

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "quiver/http/message.h"
#include "quiver/http/server.h"
#include "quiver/io/file.h"

namespace quiver::http {

/// How long a test waits for what must happen. It is no measure of speed: a test that waits so long has failed.
inline constexpr std::chrono::seconds kPatience{60};

/// Whether `claim` becomes true.
inline bool eventually(const std::function<bool()>& claim) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!claim()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct Answer {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;                            ///< without the framing of chunks
  bool is_whole = false;                       ///< the last chunk came, or as many bytes as Content-Length says
};

/// A connection to 127.0.0.1. Every call waits for its end, and throws after kPatience.
class Client {
 public:
  explicit Client(std::uint16_t port, int receive_bytes = 0) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_bytes > 0) setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    if (port != 0) connect(port);
  }
  explicit Client(io::Descriptor socket) : socket_(std::move(socket)) {}

  void connect(std::uint16_t port) {
    if (!try_to_connect(port)) throw std::runtime_error(std::string("cannot connect: ") + std::strerror(errno));
  }
  bool try_to_connect(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  int descriptor() const { return socket_.get(); }

  /// False if the server has closed the connection.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      wait(POLLOUT);
      const auto sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) return false;
      if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// Some more bytes, or "" at the end of the connection.
  std::string read_some(std::size_t most = 65536) {
    std::string bytes(most, '\0');
    wait(POLLIN);
    const auto got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  std::string read_to_end() {
    std::string all = std::exchange(buffer_, {});
    for (std::string part = read_some(); !part.empty(); part = read_some()) all += part;
    return all;
  }
  /// Exactly so many bytes.
  std::string read(std::size_t count) {
    while (buffer_.size() < count && fill()) continue;
    if (buffer_.size() < count) throw std::runtime_error("the connection ended after '" + buffer_ + "'");
    return cut(count);
  }
  /// One answer. Its head must be whole.
  Answer answer(bool is_head = false) {
    Answer out;
    const std::string head = line_block();
    out.status = std::stoi(head.substr(9, 3));
    for (std::size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
      const std::size_t colon = head.find(": ", at), end = head.find("\r\n", at);
      out.headers[lower_case(head.substr(at, colon - at))] = head.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    if (is_head || has_no_body(out.status)) {
      out.is_whole = true;
    } else if (out.headers.contains("content-length")) {
      out.body = read(std::stoul(out.headers["content-length"]));
      out.is_whole = true;
    } else if (out.headers.contains("transfer-encoding")) {
      while (auto chunk = read_chunk()) {
        if (chunk->empty()) {
          out.is_whole = true;
          break;
        }
        out.body += *chunk;
      }
    } else {
      out.body = read_to_end();
    }
    return out;
  }
  /// The next chunk, "" for the last, nothing at the end of the connection. Goes on where answer() left off.
  std::optional<std::string> read_chunk() {
    while (buffer_.find("\r\n") == std::string::npos) {
      if (!fill()) return std::nullopt;
    }
    const std::size_t digits = buffer_.find("\r\n");
    const std::size_t size = std::stoul(buffer_.substr(0, digits), nullptr, 16);
    while (buffer_.size() < digits + 2 + size + 2) {
      if (!fill()) return std::nullopt;
    }
    cut(digits + 2);
    std::string chunk = cut(size);
    EXPECT_EQ(cut(2), "\r\n");
    return chunk;
  }
  /// The head of an answer, with its empty line.
  std::string line_block() {
    while (buffer_.find("\r\n\r\n") == std::string::npos) {
      if (!fill()) throw std::runtime_error("no answer; the connection ended after '" + buffer_ + "'");
    }
    return cut(buffer_.find("\r\n\r\n") + 4);
  }
  /// Whether the server closes the connection without another byte.
  bool is_closed() { return buffer_.empty() && read_some().empty(); }

  Answer get(const std::string& path) {
    send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n");
    return answer();
  }

  void close() { socket_ = io::Descriptor(); }
  /// Closes with a reset in place of an orderly end.
  void reset() {
    const linger at_once{1, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close();
  }
  void half_close() { shutdown(socket_.get(), SHUT_WR); }

 private:
  void wait(short events) {
    pollfd poll_on{socket_.get(), events, 0};
    if (::poll(&poll_on, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) {
      throw std::runtime_error("nothing happened for so long; read so far: '" + buffer_ + "'");
    }
  }
  bool fill() {
    const std::string part = read_some();
    buffer_ += part;
    return !part.empty();
  }
  std::string cut(std::size_t count) {
    std::string out = buffer_.substr(0, count);
    buffer_.erase(0, count);
    return out;
  }

  io::Descriptor socket_;
  std::string buffer_;
};

using Handle = std::function<void(Request, ResponderPtr)>;

/// Answers with what the request was.
inline void echo(const Request& request, const ResponderPtr& responder) {
  responder->send({.body = request.method + " " + request.path + " " + request.body, .content_type = "text/plain"});
}

/// A server whose run() is a thread's. It is stopped at the end.
class RunningServer {
 public:
  explicit RunningServer(Handlers handlers, const ServerOptions& options = {})
      : server_(options, std::move(handlers)), thread_([this] { server_.run(); }) {}
  explicit RunningServer(Handle handle, const Limits& limits = {})
      : RunningServer(Handlers{.handle = std::move(handle)}, ServerOptions{.limits = limits}) {}
  ~RunningServer() { stop(); }

  Server* operator->() { return &server_; }
  std::uint16_t port() const { return server_.port(); }
  void stop() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  bool has_no_connection() {
    return eventually([&] { return server_.counts().num_connections == 0; });
  }
  bool has_connections(std::uint64_t count) {
    return eventually([&] { return server_.counts().num_connections == count; });
  }
  /// Whether another client is served.
  bool serves() {
    Client client(port());
    return client.get("/echo").status != 0;
  }

 private:
  Server server_;
  std::thread thread_;
};

/// Requests that a handler has put aside.
class Held {
 public:
  Handle handle() {
    return [this](const Request& request, ResponderPtr responder) {
      if (request.path == "/echo") return echo(request, responder);
      const std::lock_guard lock(mutex_);
      responders_.push_back(std::move(responder));
    };
  }
  std::size_t size() {
    const std::lock_guard lock(mutex_);
    return responders_.size();
  }
  ResponderPtr take() {
    EXPECT_TRUE(eventually([&] { return size() > 0; }));
    const std::lock_guard lock(mutex_);
    ResponderPtr first = responders_.front();
    responders_.erase(responders_.begin());
    return first;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    responders_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<ResponderPtr> responders_;
};

/// Memory of this process that is in RAM, in MiB.
inline double resident_mib() {
  std::ifstream file("/proc/self/statm");
  std::size_t size = 0, resident = 0;
  file >> size >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

/// Sanitizers keep freed memory for a while and watch over the rest with more.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr double kMemoryFactor = 20;
#else
inline constexpr double kMemoryFactor = 1;
#endif

}  // namespace quiver::http
