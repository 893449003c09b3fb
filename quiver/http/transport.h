// Bytes to and from a client, plain or through TLS. Of the sources that include Boost.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

struct Transferred {
  ErrorCode error;
  std::size_t num_bytes = 0;
};

/// One read and one write may wait at the same time. Asio sends with MSG_NOSIGNAL, so that no write raises SIGPIPE.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual tcp::socket& socket() = 0;
  virtual asio::awaitable<ErrorCode> handshake() = 0;
  virtual asio::awaitable<Transferred> read_some(asio::mutable_buffer space) = 0;
  virtual asio::awaitable<Transferred> write_some(asio::const_buffer bytes) = 0;
  /// Tells the client that no more follows.
  virtual asio::awaitable<void> finish() = 0;

  /// Ends reads and writes that wait.
  void cancel() {
    ErrorCode ignored;
    socket().cancel(ignored);
  }
  void close() {
    ErrorCode ignored;
    socket().close(ignored);
  }

 protected:
  template <typename Stream>
  static asio::awaitable<Transferred> read_from(Stream& stream, asio::mutable_buffer space) {
    Transferred done;
    done.num_bytes = co_await stream.async_read_some(space, asio::redirect_error(asio::use_awaitable, done.error));
    co_return done;
  }
  template <typename Stream>
  static asio::awaitable<Transferred> write_to(Stream& stream, asio::const_buffer bytes) {
    Transferred done;
    done.num_bytes = co_await stream.async_write_some(bytes, asio::redirect_error(asio::use_awaitable, done.error));
    co_return done;
  }
  void finish_socket() {
    ErrorCode ignored;
    socket().shutdown(tcp::socket::shutdown_send, ignored);
  }
};

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket) : socket_(std::move(socket)) {}
  tcp::socket& socket() override { return socket_; }
  asio::awaitable<ErrorCode> handshake() override { co_return ErrorCode(); }
  asio::awaitable<Transferred> read_some(asio::mutable_buffer space) override { return read_from(socket_, space); }
  asio::awaitable<Transferred> write_some(asio::const_buffer bytes) override { return write_to(socket_, bytes); }
  asio::awaitable<void> finish() override {
    finish_socket();
    co_return;
  }

 private:
  tcp::socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(tcp::socket socket, asio::ssl::context& context) : stream_(std::move(socket), context) {}
  tcp::socket& socket() override { return stream_.next_layer(); }
  asio::awaitable<ErrorCode> handshake() override {
    ErrorCode error;
    co_await stream_.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
    co_return error;
  }
  asio::awaitable<Transferred> read_some(asio::mutable_buffer space) override { return read_from(stream_, space); }
  asio::awaitable<Transferred> write_some(asio::const_buffer bytes) override { return write_to(stream_, bytes); }
  asio::awaitable<void> finish() override {
    ErrorCode ignored;
    co_await stream_.async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
    finish_socket();
  }

 private:
  asio::ssl::stream<tcp::socket> stream_;
};

/// TLS 1.2 and 1.3 with a certificate chain and its key, both PEM files. Throws kNotFound and kBadFormat.
inline std::unique_ptr<asio::ssl::context> tls_context(const std::string& certificate, const std::string& key) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  // Without this OpenSSL asks at the terminal for the password of an encrypted key.
  context->set_password_callback([](std::size_t, asio::ssl::context::password_purpose) { return std::string(); });
  for (const std::string& path : {certificate, key}) {
    if (!std::filesystem::exists(path)) fail(ErrorKind::kNotFound, "there is no file '{}'", path);
  }
  ErrorCode error;
  context->use_certificate_chain_file(certificate, error);
  if (error) fail(ErrorKind::kBadFormat, "'{}' is no certificate in PEM format: {}", certificate, error.message());
  context->use_private_key_file(key, asio::ssl::context::pem, error);
  if (error)
    fail(ErrorKind::kBadFormat, "'{}' is no private key in PEM format for the certificate '{}': {}", key, certificate, error.message());
  return context;
}

}  // namespace quiver::http
