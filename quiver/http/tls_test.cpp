// The same server through TLS, with a certificate that the test makes.
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdio>
#include <latch>

#include "quiver/http/server.h"
#include "quiver/http/test_support.h"
#include "quiver/io/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::http {
namespace {

template <typename T, void (*kFree)(T*)>
struct Freed {
  void operator()(T* object) const { kFree(object); }
};
template <typename T, void (*kFree)(T*)>
using Owned = std::unique_ptr<T, Freed<T, kFree>>;

struct PemFiles {
  std::string certificate, key;
};

/// A key and its certificate for "localhost", signed by itself.
PemFiles make_certificate(const std::filesystem::path& folder, const std::string& name) {
  const Owned<EVP_PKEY, EVP_PKEY_free> key(EVP_EC_gen("P-256"));
  const Owned<X509, X509_free> certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), subject);
  X509_set_pubkey(certificate.get(), key.get());
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const PemFiles files{folder / (name + ".crt"), folder / (name + ".key")};
  const auto write = [](const std::string& path, const auto& write_to) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    write_to(file);
    std::fclose(file);
  };
  write(files.certificate, [&](std::FILE* file) { PEM_write_X509(file, certificate.get()); });
  write(files.key, [&](std::FILE* file) { PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  return files;
}

/// OpenSSL's client on a blocking socket. It trusts one certificate.
class TlsClient {
 public:
  explicit TlsClient(std::uint16_t port, const std::string& certificate, int max_version = 0)
      : socket_(port), context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_load_verify_file(context_.get(), certificate.c_str());
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_security_level(context_.get(), 0);  // else TLS 1.1 would fail here, not there
    if (max_version != 0) SSL_CTX_set_max_proto_version(context_.get(), max_version);
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), socket_.descriptor());
    is_connected_ = SSL_connect(ssl_.get()) == 1;
  }
  bool is_connected() const { return is_connected_; }
  std::string version() const { return SSL_get_version(ssl_.get()); }
  void send(std::string_view bytes) { EXPECT_EQ(SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())), bytes.size()); }
  /// Until `end` has come, or the connection ends.
  std::string read_until(std::string_view end) {
    while (read_.find(end) == std::string::npos) {
      char part[4096];
      const int got = SSL_read(ssl_.get(), part, sizeof(part));
      if (got <= 0) break;
      read_.append(part, static_cast<std::size_t>(got));
    }
    const std::size_t found = read_.find(end);
    const std::size_t size = found == std::string::npos ? read_.size() : found + end.size();
    std::string out = read_.substr(0, size);
    read_.erase(0, size);
    return out;
  }
  /// Whether the server ends the connection as TLS wants it.
  bool is_closed_orderly() {
    char byte;
    const int got = SSL_read(ssl_.get(), &byte, 1);
    return got == 0 && SSL_get_error(ssl_.get(), got) == SSL_ERROR_ZERO_RETURN;
  }
  void reset() { socket_.reset(); }

 private:
  Client socket_;
  const Owned<SSL_CTX, SSL_CTX_free> context_;
  Owned<SSL, SSL_free> ssl_;
  bool is_connected_ = false;
  std::string read_;
};

class Tls : public ::testing::Test {
 protected:
  io::TempFolder folder_;
  const PemFiles files_ = make_certificate(folder_.path(), "server");

  ServerOptions options(Limits limits = {}) const {
    return {.tls_certificate = files_.certificate, .tls_key = files_.key, .limits = limits};
  }
};

constexpr std::string_view kGet = "GET /echo HTTP/1.1\r\nHost: test\r\n\r\n";

TEST_F(Tls, ServesRequestsInVersions12And13) {
  RunningServer server(Handlers{.handle = echo}, options());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(server.port(), files_.certificate, version);
    ASSERT_TRUE(client.is_connected());
    EXPECT_EQ(client.version(), version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
    for (int i = 0; i < 20; ++i) {
      client.send(kGet);
      EXPECT_THAT(client.read_until("GET /echo "), ::testing::StartsWith("HTTP/1.1 200 OK\r\n"));
    }
    const std::string body(300'000, 'x');
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n" + body);
    EXPECT_THAT(client.read_until(body), ::testing::HasSubstr("Connection: close\r\n"));
    EXPECT_TRUE(client.is_closed_orderly());
  }
  EXPECT_TRUE(server.has_no_connection());
}

TEST_F(Tls, RefusesOlderVersions) {
  RunningServer server(Handlers{.handle = echo}, options());
  const TlsClient client(server.port(), files_.certificate, TLS1_1_VERSION);
  EXPECT_FALSE(client.is_connected());
  EXPECT_TRUE(server.has_no_connection());
}

TEST_F(Tls, StreamsManyAnswersOfOneConnectionWhileTheClientIsWatched) {
  Held held;
  RunningServer server(Handlers{.handle = held.handle()}, options());
  TlsClient client(server.port(), files_.certificate);
  for (int i = 0; i < 50; ++i) {
    client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    const ResponderPtr responder = held.take();
    if (i % 2 == 0) client.send(kGet);  // pipelined
    responder->begin_stream(200, "text/plain");
    responder->write("one");
    EXPECT_THAT(client.read_until("one"), ::testing::HasSubstr("chunked"));
    responder->write("two");
    responder->end();
    EXPECT_THAT(client.read_until("0\r\n\r\n"), ::testing::HasSubstr("two"));
    if (i % 2 == 0) client.read_until("GET /echo ");
  }
}

TEST_F(Tls, TellsWhenTheClientGoes) {
  Held held;
  RunningServer server(Handlers{.handle = held.handle()}, options());
  TlsClient client(server.port(), files_.certificate);
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  std::latch gone(1);
  responder->on_gone([&] { gone.count_down(); });
  client.reset();
  EXPECT_TRUE(eventually([&] { return gone.try_wait(); }));
  EXPECT_TRUE(server.has_no_connection());
}

TEST_F(Tls, EndsHandshakesThatDoNotGoOn) {
  RunningServer server(Handlers{.handle = echo}, options({.header_timeout = std::chrono::milliseconds(200)}));
  Client plain(server.port());
  plain.send(kGet);
  plain.read_to_end();  // an alert, at most
  Client silent(server.port());
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_TRUE(server.has_no_connection());
}

TEST_F(Tls, NeedsACertificateAndItsKey) {
  const Handlers handlers{.handle = echo};
  const PemFiles other = make_certificate(folder_.path(), "other");
  const auto server = [&](const std::string& certificate, const std::string& key) {
    return testing::error_of([&] { Server({.tls_certificate = certificate, .tls_key = key}, handlers); });
  };
  const std::string absent = folder_.path() / "absent";
  EXPECT_EQ(server(files_.certificate, files_.key), "no error");
  EXPECT_EQ(server(files_.certificate, ""), "usage: TLS needs both a certificate and a key");
  EXPECT_EQ(server("", files_.key), "usage: TLS needs both a certificate and a key");
  EXPECT_EQ(server(absent, files_.key), "not found: there is no file '" + absent + "'");
  EXPECT_EQ(server(files_.certificate, absent), "not found: there is no file '" + absent + "'");
  EXPECT_THAT(server(files_.key, files_.key), ::testing::StartsWith("bad format: '" + files_.key + "' is no certificate in PEM format"));
  EXPECT_THAT(server(files_.certificate, files_.certificate),
              ::testing::StartsWith("bad format: '" + files_.certificate + "' is no private key"));
  EXPECT_THAT(server(files_.certificate, other.key), ::testing::HasSubstr("key values mismatch"));
}

}  // namespace
}  // namespace quiver::http
