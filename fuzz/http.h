// Bytes to a connection, in pieces that the fuzzer chooses: what comes back is HTTP, and no connection stays.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/support.h"
#include "quiver/base/utf8.h"
#include "quiver/http/server.h"
#include "quiver/io/file.h"

namespace quiver::fuzz {

inline constexpr std::size_t kHttpBodyLimit = 64;

/// A server whose handlers check what they get, and answer in every way that there is.
class HttpTarget {
 public:
  HttpTarget()
      : server_({}, {.check = [](const http::RequestHead& head) -> std::optional<http::Response> {
                       check_head(head);
                       if (head.path == "/refused") return http::Response{.status = 401};
                       return std::nullopt;
                     },
                     .body_limit = [](const http::RequestHead&) { return kHttpBodyLimit; },
                     .handle = [this](const http::Request& request, const http::ResponderPtr& responder) { handle(request, responder); }}) {
  }

  /// Sends pieces of at most `most` bytes; 0xFE ends a piece and is not sent. Returns what came back.
  std::string exchange(std::string_view bytes, std::size_t most) {
    int sockets[2];
    expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0, "no socket pair");
    io::Descriptor client(sockets[1]);
    server_.adopt(sockets[0]);
    std::string received;
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, std::min(bytes.find('\xFE'), most));
      bytes.remove_prefix(std::min(bytes.size(), piece.size() + (piece.size() < most ? 1 : 0)));
      // A closed connection takes no more.
      if (!piece.empty() && ::send(client.get(), piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
      step(client.get(), received);
      for (const auto& responder : std::exchange(late_, {})) responder->send({.body = "late"});
      step(client.get(), received);
    }
    step(client.get(), received);
    client.close();
    for (int i = 0; i < 100 && server_.counts().num_connections > 0; ++i) server_.poll();
    expect(server_.counts().num_connections == 0, "a connection stays");
    late_.clear();
    return received;
  }
  /// Whether an answer has been cut off since the last call.
  bool has_cut() { return std::exchange(has_cut_, false); }

 private:
  static void check_head(const http::RequestHead& head) {
    expect(head.path.starts_with('/') && is_valid_utf8(head.path), "a bad path");
    expect(std::ranges::none_of(head.path, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }), "a control character");
    for (const auto& [name, value] : head.query) expect(is_valid_utf8(name) && is_valid_utf8(value), "a bad query");
    for (const auto& [name, value] : head.headers) {
      expect(std::ranges::none_of(name, [](char c) { return c >= 'A' && c <= 'Z'; }), "a header's name in capitals");
      expect(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos, "a header of several lines");
    }
    expect(!(head.headers.contains("content-length") && head.headers.contains("transfer-encoding")), "two lengths");
  }

  void handle(const http::Request& request, const http::ResponderPtr& responder) {
    check_head(request);
    expect(request.body.size() <= kHttpBodyLimit, "a body beyond the limit");
    expect(request.content_length.value_or(request.body.size()) == request.body.size(), "another length");
    if (request.path == "/late") {
      late_.push_back(responder);
    } else if (request.path == "/stream" || request.path == "/cut") {
      responder->begin_stream(200, "text/plain");
      for (const char* chunk : {"one", "", "two"}) responder->write(chunk);
      if (request.path == "/stream") {
        responder->end();
      } else {
        has_cut_ = true;
      }
    } else if (request.path != "/dropped") {
      responder->send(
          {.status = request.path == "/none" ? 204 : 200, .body = "a body of " + std::to_string(request.body.size()) + " bytes"});
    }
  }

  void step(int client, std::string& received) {
    server_.poll();
    server_.poll();
    char part[4096];
    for (ssize_t got; (got = ::recv(client, part, sizeof(part), 0)) > 0;) received.append(part, static_cast<std::size_t>(got));
  }

  std::vector<http::ResponderPtr> late_;
  bool has_cut_ = false;
  http::Server server_;
};

/// Takes one whole answer from the front of `text`. False: it is not whole.
inline bool take_answer(std::string_view& text) {
  const std::size_t end = text.find("\r\n\r\n");
  if (end == std::string_view::npos) return false;
  const std::string_view head = text.substr(0, end + 2);
  text.remove_prefix(end + 4);
  expect(head.starts_with("HTTP/1.1 ") && head.size() > 12, "no status line");
  const int status = std::atoi(std::string(head.substr(9, 3)).c_str());
  expect(std::set<int>{100, 200, 204, 400, 401, 413, 417, 431, 500, 501, 505}.contains(status), "another status");
  for (std::size_t line = head.find("\r\n") + 2; line < head.size(); line = head.find("\r\n", line) + 2) {
    expect(head.find(": ", line) < head.find("\r\n", line), "no header");
  }
  if (status == 100 || status == 204 || text.starts_with("HTTP/1.1 ")) return true;  // the last: an answer to HEAD
  if (const std::size_t length = head.find("\r\nContent-Length: "); length != std::string_view::npos) {
    const auto size = static_cast<std::size_t>(std::atoi(std::string(head.substr(length + 18)).c_str()));
    if (text.empty()) return true;
    if (text.size() < size) return false;
    text.remove_prefix(size);
    return true;
  }
  if (head.find("Transfer-Encoding: chunked\r\n") == std::string_view::npos) {  // for a client of HTTP/1.0
    expect(head.find("Connection: close\r\n") != std::string_view::npos, "an answer without an end");
    text = {};
    return true;
  }
  if (text.empty()) return true;
  for (;;) {
    const std::size_t line = text.find("\r\n");
    if (line == std::string_view::npos) return false;
    const std::size_t size = std::strtoul(std::string(text.substr(0, line)).c_str(), nullptr, 16);
    if (text.size() < line + 2 + size + 2) return false;
    expect(text.substr(line + 2 + size, 2) == "\r\n", "a chunk without an end");
    text.remove_prefix(line + 2 + size + 2);
    if (size == 0) return true;
  }
}

/// The first byte: the most bytes of a piece, 0 for any number.
inline void run_http(std::span<const std::byte> bytes) {
  static HttpTarget target;
  if (bytes.empty()) return;
  const auto most = static_cast<std::size_t>(bytes[0]);
  const std::string received = target.exchange(text_of(bytes.subspan(1)), most == 0 ? std::size_t{1} << 16 : most);
  const bool has_cut = target.has_cut();
  std::string_view rest = received;
  while (!rest.empty() && take_answer(rest)) continue;
  expect(rest.empty() || has_cut, "an answer is not whole");
}

}  // namespace quiver::fuzz
