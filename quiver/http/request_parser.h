// Bytes to a request, by Beast's parser. Of connection.cpp alone: Beast is compiled once.
#pragma once

#include <algorithm>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/http/message.h"
#include "quiver/http/server.h"

namespace quiver::http {

/// Bytes that no request has used yet.
using InputBuffer = boost::beast::flat_buffer;

/// Collects one request. Beast checks the grammar; this class checks what Beast lets pass: the number of headers, a second Content-Length,
/// transfer encodings but chunked, a missing Host. It counts the body, since Beast's own limit knows no chunks that have been read.
class RequestParser final : public boost::beast::http::basic_parser<true> {
 public:
  explicit RequestParser(const Limits& limits) : limits_(limits) {
    header_limit(static_cast<std::uint32_t>(std::min<std::size_t>(limits.max_header_bytes, std::numeric_limits<std::uint32_t>::max())));
    body_limit(boost::none);
    eager(false);
  }

  /// Parses the head, or goes on with it, and stops behind it. Returns the number of bytes used; 0 where more are needed.
  std::size_t feed_head(std::string_view bytes) {
    const std::size_t used = parse(bytes);
    // Beast's limit is one of the bytes that wait, and it uses up whole headers as they come.
    head_bytes_ += used;
    const std::size_t waiting = is_header_done() ? 0 : bytes.size() - used;
    if (head_bytes_ + waiting > limits_.max_header_bytes) refuse(431, format("the head is longer than {} bytes", limits_.max_header_bytes));
    return used;
  }

  /// Parses more of the body, of at most `max_bytes`.
  std::size_t feed_body(std::string_view bytes, std::size_t max_bytes) {
    max_body_bytes_ = max_bytes;
    return parse(bytes);
  }

  const std::optional<Fault>& fault() const { return fault_; }
  bool is_http_1_0() const { return is_http_1_0_; }
  bool has_body() const { return !is_done(); }
  Request request;

 private:
  using Code = boost::beast::error_code;
  using View = boost::beast::string_view;
  static std::string_view view(View text) { return {text.data(), text.size()}; }

  std::size_t parse(std::string_view bytes) {
    namespace http = boost::beast::http;
    Code code;
    const std::size_t used = put(boost::asio::buffer(bytes.data(), bytes.size()), code);
    if (!code || code == http::error::need_more) return used;
    if (code == http::error::header_limit) refuse(431, format("the head is longer than {} bytes", limits_.max_header_bytes));
    if (code == http::error::bad_version && names_another_version(bytes)) refuse(505, "this server speaks HTTP/1.1 and HTTP/1.0");
    refuse(400, format("this is no HTTP request: {}", code.message()));  // the first fault stands
    return used;
  }

  /// Whether a request line ends with "HTTP/2.0", say.
  static bool names_another_version(std::string_view bytes) {
    const std::size_t name = bytes.find(" HTTP/");
    if (name == std::string_view::npos) return false;
    const std::string_view version = bytes.substr(name + 6, 3);
    return version != "1.1" && version != "1.0";
  }

  void refuse(int status, std::string message) {
    if (!fault_) fault_ = Fault{status, std::move(message)};
  }
  /// The same, in a call by Beast, which then ends its parsing.
  void refuse(int status, std::string message, Code& code) {
    refuse(status, std::move(message));
    code = boost::beast::http::error::bad_value;
  }

  void on_request_impl(boost::beast::http::verb, View method, View target, int version, Code& code) override {
    request.method = view(method);
    is_http_1_0_ = version == 10;
    if (const auto fault = read_target(view(target), request)) refuse(fault->status, fault->message, code);
  }
  void on_response_impl(int, View, int, Code&) override {}

  void on_field_impl(boost::beast::http::field, View beast_name, View value, Code& code) override {
    if (is_header_done()) return;  // trailers are ignored
    if (++num_headers_ > limits_.max_headers) return refuse(431, format("there are more than {} headers", limits_.max_headers), code);
    const std::string name = lower_case(view(beast_name));
    const auto [position, is_new] = request.headers.try_emplace(name, view(value));
    const bool is_single = name == "content-length" || name == "host" || name == "transfer-encoding";
    if (is_single && (!is_new || (name == "content-length" && value.find(',') != View::npos))) {
      return refuse(400, format("the header {} comes twice", name), code);
    }
    if (!is_new) position->second.append(", ").append(view(value));
  }

  void on_header_impl(Code& code) override {
    const std::string_view encoding = request.header("transfer-encoding");
    if (request.headers.contains("transfer-encoding")) {
      if (is_http_1_0_) return refuse(400, "HTTP/1.0 knows no Transfer-Encoding", code);
      if (!equal_ignoring_case(encoding, "chunked")) return refuse(501, "the one Transfer-Encoding is chunked", code);
    }
    if (!is_http_1_0_ && !request.headers.contains("host")) return refuse(400, "the header Host is missing", code);
    if (const auto length = content_length()) request.content_length = *length;
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>&, Code&) override {}
  std::size_t on_body_impl(View bytes, Code& code) override {
    check_body(bytes.size(), code);
    if (!code) request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t size, View, Code& code) override { check_body(size, code); }
  std::size_t on_chunk_body_impl(std::uint64_t, View bytes, Code& code) override { return on_body_impl(bytes, code); }
  void on_finish_impl(Code&) override {}

  /// Whether so many more bytes of body are within the limit.
  void check_body(std::uint64_t size, Code& code) {
    if (size > max_body_bytes_ - request.body.size()) refuse(413, format("the body is longer than {} bytes", max_body_bytes_), code);
  }

  const Limits& limits_;
  std::optional<Fault> fault_;
  bool is_http_1_0_ = false;
  std::size_t head_bytes_ = 0;
  std::size_t num_headers_ = 0;
  std::size_t max_body_bytes_ = 0;
};

}  // namespace quiver::http
