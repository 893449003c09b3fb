// Bytes that are no request, requests that break limits, and clients that do not go on.
#include <csignal>
#include <cstring>

#include "quiver/http/server.h"
#include "quiver/http/test_support.h"

namespace quiver::http {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// What a fresh connection answers to these bytes, as "STATUS body", if it then closes.
std::string answer_to(RunningServer& server, std::string_view bytes) {
  Client client(server.port());
  client.send(bytes);
  const Answer answer = client.answer();
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
  return std::to_string(answer.status) + " " + answer.body;
}

struct Row {
  const char* name;
  std::string bytes;
  const char* answer;
};

std::string get(const std::string& headers) { return "GET /echo HTTP/1.1\r\n" + headers + "\r\n"; }
std::string post(const std::string& headers, const std::string& body = "") {
  return "POST /echo HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n" + body;
}
std::string chunked(const std::string& body) { return post("Transfer-Encoding: chunked\r\n", body); }

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows = {
      {"nothing but noise", "\x80\xff\n\r\n\r\n", "400 this is no HTTP request"},
      {"HTTP/0.9", "GET /echo\r\n\r\n", "400 this is no HTTP request"},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 this server speaks HTTP/1.1 and HTTP/1.0"},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: test\r\n\r\n", "505 this server speaks"},
      {"TLS hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), "400 this is no HTTP request"},
      {"bare line feeds", "GET /echo HTTP/1.1\nHost: test\n\n\r\n\r\n", "400 this is no HTTP request"},
      {"no host", get(""), "400 the header Host is missing"},
      {"two hosts", get("Host: a\r\nHost: b\r\n"), "400 the header host comes twice"},
      {"space before the colon", get("Host : test\r\n"), "400 this is no HTTP request"},
      {"NUL in a header", get(std::string("Host: te\0st\r\n", 13)), "400 this is no HTTP request"},
      {"proxy's target", "GET http://test/ HTTP/1.1\r\nHost: test\r\n\r\n", "400 the target of a request must begin with '/'"},
      {"%00 in the path", "GET /a%00b HTTP/1.1\r\nHost: test\r\n\r\n", "400 the path holds a control character"},
      {"header line of 20 KiB", get("Host: test\r\nX: " + std::string(20 << 10, 'a') + "\r\n"), "431 the head is longer than 16384 bytes"},
      {"path of 20 KiB", "GET /" + std::string(20 << 10, 'a') + " HTTP/1.1\r\nHost: test\r\n\r\n",
       "431 the head is longer than 16384 bytes"},
      {"101 headers",
       [] {
         std::string headers = "Host: test\r\n";
         for (int i = 0; i < 100; ++i) headers += "A: b\r\n";
         return get(headers);
       }(),
       "431 there are more than 100 headers"},
      {"60 headers of 300 bytes",
       [] {
         std::string headers = "Host: test\r\n";
         for (int i = 0; i < 60; ++i) headers += "A: " + std::string(295, 'b') + "\r\n";
         return get(headers);
       }(),
       "431 the head is longer than 16384 bytes"},
      {"Content-Length and chunked", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
       "400 this is no HTTP request"},
      {"chunked and Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
       "400 this is no HTTP request"},
      {"two Content-Lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), "400 this is no HTTP request"},
      {"the same Content-Length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
       "400 the header content-length comes twice"},
      {"two Content-Lengths in a line", post("Content-Length: 3, 3\r\n", "abc"), "400 the header content-length comes twice"},
      {"negative Content-Length", post("Content-Length: -1\r\n"), "400 this is no HTTP request"},
      {"Content-Length with a sign", post("Content-Length: +3\r\n", "abc"), "400 this is no HTTP request"},
      {"Content-Length beyond 64 bits", post("Content-Length: 18446744073709551616\r\n"), "400 this is no HTTP request"},
      {"huge Content-Length", post("Content-Length: 18446744073709551615\r\n"), "413 the body is of 18446744073709551615 bytes"},
      {"gzip", post("Transfer-Encoding: gzip\r\n", "abc"), "501 the one Transfer-Encoding is chunked"},
      {"gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), "501 the one Transfer-Encoding is chunked"},
      {"chunked, gzip", post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), "501 the one Transfer-Encoding is chunked"},
      {"chunked with a tail", post("Transfer-Encoding: chunkedx\r\n", "0\r\n\r\n"), "501 the one Transfer-Encoding is chunked"},
      {"chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400 this is no HTTP request"},
      {"chunked in HTTP/1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       "400 HTTP/1.0 knows no Transfer-Encoding"},
      {"chunk of -2 bytes", chunked("-2\r\nab\r\n"), "400 this is no HTTP request"},
      {"chunk of no size", chunked("\r\nab\r\n"), "400 this is no HTTP request"},
      {"chunk of 0x3 bytes", chunked("0x3\r\nabc\r\n\r\n"), "400 this is no HTTP request"},
      {"chunk longer than it says", chunked("2\r\nabc\r\n0\r\n\r\n"), "400 this is no HTTP request"},
      {"chunk of 2^64 - 1 bytes", chunked("FFFFFFFFFFFFFFFF\r\nab"), "413 the body is longer than 1000 bytes"},
      {"chunk of 2^64 bytes", chunked("10000000000000000\r\nab"), "400 this is no HTTP request"},
      {"second chunk beyond the limit", chunked("3E7\r\n" + std::string(999, 'x') + "\r\n2\r\nab"),
       "413 the body is longer than 1000 bytes"},
      {"sizes of chunks that overflow together", chunked("1\r\na\r\nFFFFFFFFFFFFFFFF\r\nb"), "413 the body is longer than 1000 bytes"},
      {"endless chunk extension", chunked("1;" + std::string(20 << 10, 'e')), "400 a line between chunks of the body is too long"},
      {"endless trailer", chunked("0\r\nX: " + std::string(20 << 10, 't')), "400 a line between chunks of the body is too long"},
  };
  return kRows;
}

Handlers with_limit() {
  return {.body_limit = [](const RequestHead&) { return std::size_t{1000}; }, .handle = echo};
}

TEST(Hostile, RequestsAreRefusedInWords) {
  RunningServer server(with_limit());
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.name);
    EXPECT_THAT(answer_to(server, row.bytes), StartsWith(row.answer));
  }
  EXPECT_TRUE(server.serves());
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Hostile, RequestsAreRefusedAlikeInPiecesOfOneByte) {
  RunningServer server(with_limit());
  for (const Row& row : rows()) {
    if (row.bytes.size() > 1000) continue;
    SCOPED_TRACE(row.name);
    Client client(server.port());
    const int no_delay = 1;
    setsockopt(client.descriptor(), IPPROTO_TCP, /*TCP_NODELAY=*/1, &no_delay, sizeof(no_delay));
    for (const char byte : row.bytes) client.send({&byte, 1});
    const Answer answer = client.answer();
    EXPECT_THAT(std::to_string(answer.status) + " " + answer.body, StartsWith(row.answer));
  }
}

TEST(Hostile, HeadsThatComeLineByLineAreCountedAsAWhole) {
  RunningServer server(with_limit());
  Client client(server.port());
  const int no_delay = 1;
  setsockopt(client.descriptor(), IPPROTO_TCP, /*TCP_NODELAY=*/1, &no_delay, sizeof(no_delay));
  client.send("GET /echo HTTP/1.1\r\nHost: test\r\n");
  for (int i = 0; i < 60; ++i) {  // Beast uses up each of them, and its limit is one of what waits
    client.send("A: " + std::string(295, 'b') + "\r\n");
    std::this_thread::sleep_for(1ms);
  }
  client.send("\r\n");
  EXPECT_EQ(client.answer().status, 431);
}

TEST(Hostile, LongPathsWithinTheLimitAreServed) {
  RunningServer server(with_limit());
  Client client(server.port());
  const std::string path = "/" + std::string(8 << 10, 'p');
  EXPECT_EQ(client.get(path).body, "GET " + path + " ");
  client.send(get("Host: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"));
  EXPECT_EQ(client.answer().status, 200);
}

TEST(Hostile, AnswersSayNothingOfTheRequest) {
  RunningServer server(with_limit());
  Client client(server.port());
  client.send("GET /a%00<script> HTTP/1.1\r\nHost: <script>\r\nX-<script>: 1\r\n\r\n");
  EXPECT_EQ(client.read_to_end().find("script"), std::string::npos);
}

/// Sends `head`, then `piece` until the server has enough or 64 MiB are sent. Returns all that the server answered.
std::string flood(RunningServer& server, const std::string& head, const std::string& piece) {
  Client client(server.port());
  client.send(head);
  for (std::size_t sent = 0; sent < std::size_t{64} << 20 && client.send(piece); sent += piece.size()) continue;
  return client.read_to_end();
}

TEST(Hostile, FloodsAreStoppedWithoutMemory) {
  RunningServer server(with_limit());
  EXPECT_TRUE(server.serves());
  const double before = resident_mib();
  std::string headers, chunk = "10000\r\n" + std::string(0x10000, 'c') + "\r\n";
  for (int i = 0; i < 10'000; ++i) headers += "H" + std::to_string(i) + ": v\r\n";
  EXPECT_THAT(flood(server, "GET /echo HTTP/1.1\r\nX: ", std::string(65536, 'a')), HasSubstr("HTTP/1.1 431 "));
  EXPECT_THAT(flood(server, "GET /echo HTTP/1.1\r\n", headers), HasSubstr("HTTP/1.1 431 "));
  EXPECT_THAT(flood(server, "GET /", std::string(65536, 'a')), HasSubstr("HTTP/1.1 431 "));
  EXPECT_THAT(flood(server, chunked(""), chunk), HasSubstr("HTTP/1.1 413 "));
  EXPECT_THAT(flood(server, chunked(""), "1;" + std::string(60'000, 'e')), HasSubstr("HTTP/1.1 400 "));
  EXPECT_THAT(flood(server, chunked("0\r\n"), headers), HasSubstr("HTTP/1.1 400 "));
  EXPECT_THAT(flood(server, "\x16\x03\x01", std::string(65536, 't')), HasSubstr("HTTP/1.1 400 "));
  EXPECT_LT(resident_mib() - before, 16 * kMemoryFactor);
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Hostile, ALargeBodyThatIsRefusedDoesNotHideTheAnswer) {
  RunningServer server(with_limit());
  Client client(server.port());
  EXPECT_TRUE(client.send(post("Content-Length: 8000000\r\n", std::string(8'000'000, 'b'))));
  EXPECT_EQ(client.answer().status, 413);
}

TEST(Hostile, SlowClientsAreTimedOut) {
  RunningServer server(echo, Limits{.header_timeout = 1000ms, .body_timeout = 500ms});
  Client silent(server.port()), head(server.port()), body(server.port()), chunks(server.port());
  head.send("GET /ec");
  body.send(post("Content-Length: 100\r\n", "a"));
  chunks.send(chunked("1\r\na\r\n"));
  // A byte now and then does not prolong the time.
  const auto drip = [](Client& client, const char* byte) {
    pollfd answered{client.descriptor(), POLLIN, 0};
    while (::poll(&answered, 1, 20) == 0 && client.send(byte)) continue;
    return client.answer();
  };
  const Answer late_head = drip(head, "h");
  EXPECT_EQ(late_head.status, 408);
  EXPECT_EQ(late_head.body, "the head of the request did not come in time\n");
  const Answer late_body = drip(body, "b");
  EXPECT_EQ(late_body.status, 408);
  EXPECT_EQ(late_body.body, "the body of the request did not come in time\n");
  EXPECT_EQ(chunks.answer().status, 408);
  EXPECT_TRUE(silent.is_closed());  // without a word: it has not asked anything
  for (Client* client : {&head, &body, &chunks}) client->close();
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Hostile, IdleConnectionsAreClosedWithoutAWordAndEmptyLinesDoNotKeepThem) {
  RunningServer server(echo, Limits{.idle_timeout = 300ms});
  Client idle(server.port()), client(server.port());
  EXPECT_EQ(idle.get("/echo").status, 200);
  EXPECT_EQ(client.get("/echo").status, 200);
  pollfd closed{client.descriptor(), POLLIN, 0};
  while (::poll(&closed, 1, 20) == 0 && client.send("\r\n")) continue;
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_TRUE(idle.is_closed());
}

TEST(Hostile, ARequestThatIsAnsweredLateIsNoTimeout) {
  Held held;
  RunningServer server(held.handle(), Limits{.header_timeout = 500ms, .body_timeout = 500ms, .idle_timeout = 50ms, .write_timeout = 50ms});
  Client client(server.port());
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  std::this_thread::sleep_for(600ms);
  responder->begin_stream(200, "text/plain");
  std::this_thread::sleep_for(200ms);
  EXPECT_TRUE(responder->write("late"));
  responder->end();
  EXPECT_EQ(client.answer().body, "late");
}

TEST(Hostile, AClientThatReadsNothingIsTimedOut) {
  Held held;
  RunningServer server(held.handle(), Limits{.write_timeout = 300ms});
  Client client(server.port(), /*receive_bytes=*/2048);
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  responder->send({.body = std::string(32 << 20, 'x')});
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_FALSE(responder->is_open());
}

TEST(Hostile, ManyThatHoldConnectionsLetAGoodRequestThrough) {
  Held held;
  RunningServer server(held.handle());
  std::vector<Client> clients;
  const auto hold = [&](int count, const std::string& bytes) {
    for (int i = 0; i < count; ++i) {
      clients.emplace_back(server.port(), /*receive_bytes=*/2048);
      clients.back().send(bytes);
    }
  };
  hold(100, "");
  hold(100, "GET /echo HT");
  hold(100, post("Content-Length: 1000\r\n", "half"));
  hold(100, chunked("3\r\nab"));
  hold(50, "GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return held.size() == 50; }));
  std::vector<ResponderPtr> slow;
  for (int i = 0; i < 50; ++i) {
    slow.push_back(held.take());
    slow.back()->begin_stream(200, "text/plain");
    slow.back()->write(std::string(1 << 20, 's'));  // nobody reads it
  }
  EXPECT_TRUE(server.has_connections(450));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(server.serves());
  clients.clear();
  EXPECT_TRUE(server.has_no_connection());
}

volatile std::sig_atomic_t num_sigpipes = 0;

TEST(Hostile, WritesToClientsThatAreGoneRaiseNoSignal) {
  const auto before = std::signal(SIGPIPE, [](int) { num_sigpipes = num_sigpipes + 1; });
  Held held;
  RunningServer server(held.handle());
  for (int i = 0; i < 50; ++i) {
    Client client(server.port());
    client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    const ResponderPtr responder = held.take();
    responder->begin_stream(200, "text/plain");
    i % 2 == 0 ? client.close() : client.reset();
    EXPECT_TRUE(eventually([&] { return !responder->write(std::string(1000, 'x')); }));
  }
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(num_sigpipes, 0);
  std::signal(SIGPIPE, before);
}

/// Requests of /stream are answered at once, those of /held never. Counts the responders that live.
struct Counted {
  std::atomic<int> num_alive = 0, num_gone = 0, num_requests = 0;

  void handle(const Request& request, const ResponderPtr& responder) {
    if (request.path == "/echo") return echo(request, responder);
    ++num_requests;
    ++num_alive;
    const std::shared_ptr<int> alive(new int, [this](const int* number) {
      delete number;
      --num_alive;
    });
    if (request.path == "/stream") {
      responder->on_gone([this, alive] { ++num_gone; });
      responder->begin_stream(200, "text/plain");
      for (int i = 0; i < 20; ++i) responder->write("event " + std::to_string(i) + "\n");
      return responder->end();
    }
    // The function keeps its own responder, until the client goes.
    responder->on_gone([this, alive, responder] { ++num_gone; });
  }
};

TEST(Hostile, ClientsThatAreKilledAtAnyByteOfTheRequestLeaveNothing) {
  Counted counted;
  RunningServer server([&](const Request& request, const ResponderPtr& responder) { counted.handle(request, responder); });
  for (const std::string path : {"/stream", "/held"}) {
    for (const std::string& framing :
         {std::string("Content-Length: 5\r\n\r\nhello"), std::string("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")}) {
      const std::string request = "POST " + path + " HTTP/1.1\r\nHost: test\r\n" + framing;
      for (std::size_t size = 0; size <= request.size(); ++size) {
        Client client(server.port());
        client.send(std::string_view(request).substr(0, size));
        size % 2 == 0 ? client.reset() : client.close();
      }
    }
  }
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(counted.num_alive, 0);
  EXPECT_LE(counted.num_gone, counted.num_requests);
  EXPECT_LE(counted.num_requests, 4);  // none of a request that was not whole
  EXPECT_TRUE(server.serves());
}

TEST(Hostile, ClientsThatAreKilledAtAnyByteOfTheAnswerLeaveNothing) {
  Counted counted;
  RunningServer server([&](const Request& request, const ResponderPtr& responder) { counted.handle(request, responder); });
  const std::string request = "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n";
  Client whole(server.port());
  whole.send("GET /stream HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
  const std::size_t size = whole.read_to_end().size() - std::string_view("Connection: close\r\n").size();
  whole.close();
  for (std::size_t offset = 0; offset <= size; ++offset) {
    Client client(server.port());
    client.send(request);
    EXPECT_EQ(client.read(offset).size(), offset);
    offset % 2 == 0 ? client.reset() : client.close();
  }
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(counted.num_alive, 0);
  EXPECT_EQ(counted.num_gone, 0);  // every answer had ended
  EXPECT_GE(counted.num_requests, static_cast<int>(size));
  EXPECT_TRUE(server.serves());
}

TEST(Hostile, ClientsThatAreKilledWhileTheyWaitLeaveNothing) {
  Counted counted;
  RunningServer server([&](const Request& request, const ResponderPtr& responder) { counted.handle(request, responder); });
  for (int i = 0; i < 200; ++i) {
    Client client(server.port());
    client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    ASSERT_TRUE(eventually([&] { return counted.num_requests == i + 1; }));
    i % 2 == 0 ? client.reset() : client.close();
  }
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(counted.num_gone, 200);
  EXPECT_EQ(counted.num_alive, 0);
}

}  // namespace
}  // namespace quiver::http
