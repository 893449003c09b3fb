// What a server does with the requests of well-behaved clients.
#include "quiver/http/server.h"

#include <cstring>
#include <latch>

#include "quiver/http/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::http {
namespace {

using namespace std::chrono_literals;

TEST(Server, AnswersRequestsOfOneConnectionOneAfterTheOther) {
  RunningServer server(echo);
  Client client(server.port());
  for (int i = 0; i < 20; ++i) {
    const std::string path = "/echo/" + std::to_string(i), body(static_cast<std::size_t>(i) * 1000, 'x');
    client.send("POST " + path + " HTTP/1.1\r\nHost: test\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "POST " + path + " " + body);
    EXPECT_EQ(answer.headers.at("content-type"), "text/plain");
    EXPECT_FALSE(answer.headers.contains("connection"));
    EXPECT_EQ(answer.headers.at("date").size(), std::strlen("Sun, 06 Nov 1994 08:49:37 GMT"));
  }
  EXPECT_EQ(server->counts().accepted, 1U);
  client.close();
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Server, HandsOverWhatARequestSays) {
  Request seen;
  RunningServer server([&](const Request& request, const ResponderPtr& responder) {
    seen = request;
    responder->send({});
  });
  Client client(server.port());
  client.send(
      "PUT /a%20b/%C3%A9?x=1&y=%26+%2B&x=2&flag HTTP/1.1\r\nHost: test:80\r\nX-Two: a\r\nx-two: b \r\nContent-Length: 3\r\n\r\n\r\n!");
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_EQ(seen.method, "PUT");
  EXPECT_EQ(seen.path, "/a b/\u00e9");
  EXPECT_EQ(seen.query, (std::map<std::string, std::string>{{"x", "2"}, {"y", "& +"}, {"flag", ""}}));
  EXPECT_EQ(seen.headers, (std::map<std::string, std::string>{{"host", "test:80"}, {"x-two", "a, b"}, {"content-length", "3"}}));
  EXPECT_EQ(seen.header("x-two"), "a, b");
  EXPECT_EQ(seen.header("absent"), "");
  EXPECT_EQ(seen.content_length, 3U);
  EXPECT_EQ(seen.body, "\r\n!");
  EXPECT_EQ(seen.peer, "127.0.0.1");
}

TEST(Server, ReadsChunkedBodiesAndForgetsTrailers) {
  RunningServer server([](const Request& request, const ResponderPtr& responder) {
    EXPECT_EQ(request.content_length, std::nullopt);
    EXPECT_EQ(request.header("x-trailer"), "");
    EXPECT_EQ(request.header("host"), "test");
    echo(request, responder);
  });
  Client client(server.port());
  client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.send("3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n");
  EXPECT_EQ(client.answer().body, "POST /echo abc0123456789");
  EXPECT_EQ(client.get("/echo").body, "GET /echo ");
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  Held held;
  RunningServer server(held.handle());
  Client client(server.port());
  std::string all = "GET /held HTTP/1.1\r\nHost: test\r\n\r\n";
  for (int i = 0; i < 50; ++i) {
    all += "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i) + "\r\n";  // and an empty line
  }
  client.send(all);
  held.take()->send({.body = "first"});
  EXPECT_EQ(client.answer().body, "first");
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.answer().body, "POST /echo " + std::to_string(10 + i));
}

TEST(Server, KeepsMorePipelinedBytesThanItReadsAhead) {
  Held held;
  RunningServer server(held.handle());
  Client client(server.port());
  const std::string body(100'000, 'b');
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\nPOST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n" + body);
  held.take()->send({.body = "first"});
  EXPECT_EQ(client.answer().body, "first");
  EXPECT_EQ(client.answer().body, "POST /echo " + body);
}

TEST(Server, ClosesWhenTheClientAsks) {
  RunningServer server(echo);
  Client client(server.port());
  client.send("GET /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
  const Answer answer = client.answer();
  EXPECT_EQ(answer.body, "GET /echo ");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
}

TEST(Server, SpeaksHttp10) {
  RunningServer server([](const Request& request, const ResponderPtr& responder) {
    if (request.path == "/echo") return echo(request, responder);
    responder->begin_stream(200, "text/plain");
    responder->write("ab");
    responder->write("cd");
    responder->end();
  });
  Client closing(server.port());
  closing.send("GET /echo HTTP/1.0\r\n\r\n");
  EXPECT_EQ(closing.answer().body, "GET /echo ");
  EXPECT_TRUE(closing.is_closed());

  Client keeping(server.port());
  keeping.send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(keeping.answer().headers.at("connection"), "keep-alive");
  keeping.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const Answer stream = keeping.answer();
  EXPECT_EQ(stream.headers.at("connection"), "close");
  EXPECT_FALSE(stream.headers.contains("transfer-encoding"));
  EXPECT_EQ(stream.body, "abcd");
}

TEST(Server, ClosesAfterTheLastRequestThatAConnectionMayHave) {
  RunningServer server(echo, Limits{.max_requests_per_connection = 3});
  Client client(server.port());
  EXPECT_FALSE(client.get("/echo").headers.contains("connection"));
  EXPECT_FALSE(client.get("/echo").headers.contains("connection"));
  EXPECT_EQ(client.get("/echo").headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
}

TEST(Server, AnswersHeadWithTheHeadAlone) {
  RunningServer server([](const Request& request, const ResponderPtr& responder) {
    if (request.path == "/echo") return echo(request, responder);
    responder->begin_stream(200, "text/plain");
    EXPECT_TRUE(responder->write("text"));
    responder->end();
  });
  Client client(server.port());
  client.send(
      "HEAD /echo HTTP/1.1\r\nHost: test\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: test\r\n\r\nGET /echo HTTP/1.1\r\nHost: test\r\n\r\n");
  EXPECT_EQ(client.answer(/*is_head=*/true).headers.at("content-length"), "11");
  EXPECT_EQ(client.answer(/*is_head=*/true).headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(client.answer().body, "GET /echo ");
}

TEST(Server, SendsNoBodyWithStatus204And304) {
  RunningServer server([](const Request& request, const ResponderPtr& responder) {
    responder->send({.status = request.path == "/none" ? 204 : 304, .body = "never seen", .headers = {{"ETag", "\"1\""}}});
  });
  Client client(server.port());
  const Answer none = client.get("/none");
  EXPECT_EQ(none.status, 204);
  EXPECT_FALSE(none.headers.contains("content-length"));
  const Answer same = client.get("/same");
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.headers.at("etag"), "\"1\"");
}

TEST(Server, AllowsABodyToThoseThatAsk) {
  RunningServer server(Handlers{.check =
                                    [](const RequestHead& head) {
                                      return head.path == "/refused" ? std::optional(Response{.status = 401, .body = "no"}) : std::nullopt;
                                    },
                                .handle = echo});
  Client client(server.port());
  client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.line_block(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  EXPECT_EQ(client.answer().body, "POST /echo body");
  client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\nbody");  // it does not wait
  EXPECT_EQ(client.answer().body, "POST /echo body");
  client.send("POST /refused HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.answer().status, 401);
  EXPECT_TRUE(client.is_closed());

  Client other(server.port());
  other.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: tea\r\n\r\n");
  EXPECT_EQ(other.answer().status, 417);
}

TEST(Server, ChecksBeforeTheBody) {
  int num_handled = 0;
  std::optional<std::uint64_t> length_seen;
  RunningServer server(
      Handlers{.check =
                   [&](const RequestHead& head) {
                     length_seen = head.content_length;
                     return head.header("authorization") == "Bearer key" ? std::nullopt : std::optional(Response{.status = 401});
                   },
               .body_limit = [](const RequestHead& head) { return head.path == "/large" ? std::size_t{100} : std::size_t{10}; },
               .handle =
                   [&](const Request& request, const ResponderPtr& responder) {
                     ++num_handled;
                     echo(request, responder);
                   }});
  Client client(server.port());
  EXPECT_EQ(client.get("/echo").status, 401);  // without a body the connection stays
  EXPECT_EQ(client.get("/echo").status, 401);
  client.send("POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n");  // and never the body
  const Answer refused = client.answer();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(length_seen, 11U);
  EXPECT_TRUE(client.is_closed());
  EXPECT_EQ(num_handled, 0);

  const std::string key = "Host: test\r\nAuthorization: Bearer key\r\n";
  Client keyed(server.port());
  keyed.send("POST /large HTTP/1.1\r\n" + key + "Content-Length: 11\r\n\r\nhello world");
  EXPECT_EQ(keyed.answer().body, "POST /large hello world");
  keyed.send("POST /echo HTTP/1.1\r\n" + key + "Content-Length: 11\r\n\r\n");
  const Answer too_large = keyed.answer();
  EXPECT_EQ(too_large.status, 413);
  EXPECT_EQ(too_large.body, "the body is of 11 bytes, longer than 10\n");
  EXPECT_TRUE(keyed.is_closed());
}

TEST(Server, RunsFunctionsOnItsThread) {
  RunningServer server(echo);
  std::thread::id posted, ticked;
  std::latch done(4);
  server->post([&] {
    posted = std::this_thread::get_id();
    done.count_down();
  });
  std::atomic<int> ticks = 0;
  server->every(1ms, [&] {
    ticked = std::this_thread::get_id();
    if (++ticks <= 3) done.count_down();
  });
  EXPECT_TRUE(eventually([&] { return done.try_wait(); }));
  server.stop();
  EXPECT_EQ(posted, ticked);
  EXPECT_NE(posted, std::this_thread::get_id());
  const int at_stop = ticks;
  server->every(1ms, [&] { ++ticks; });  // too late
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(ticks, at_stop);
}

TEST(Server, ThrowsFromRunWhatAPostedFunctionThrows) {
  Server server({}, {.handle = echo});
  server.post([] { fail(ErrorKind::kInternal, "posted"); });
  EXPECT_ERROR(server.run(), ErrorKind::kInternal, "posted");
  server.stop();
  server.run();
}

TEST(Server, ClosesTheListenerAndLetsRequestsEnd) {
  Held held;
  RunningServer server(held.handle());
  Client idle(server.port()), fresh(server.port()), busy(server.port()), begun(server.port());
  EXPECT_EQ(idle.get("/echo").status, 200);
  busy.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  begun.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(begun.line_block(), ::testing::HasSubstr("100"));
  ASSERT_TRUE(server.has_connections(4));

  server->close_listener();
  EXPECT_TRUE(idle.is_closed());
  EXPECT_TRUE(fresh.is_closed());
  EXPECT_FALSE(Client(0).try_to_connect(server.port()));  // nobody listens
  begun.send("abc");
  const Answer late = begun.answer();
  EXPECT_EQ(late.body, "POST /echo abc");
  EXPECT_EQ(late.headers.at("connection"), "close");
  responder->send({.body = "the last"});
  const Answer last = busy.answer();
  EXPECT_EQ(last.body, "the last");
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_TRUE(busy.is_closed());
  busy.close();
  begun.close();
  EXPECT_EQ(held.size(), 0U);
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Server, StopsWithRequestsInFlight) {
  Held held;
  std::atomic<int> num_gone = 0;
  std::vector<ResponderPtr> responders;
  Client half(0), waiting(0), streaming(0), idle(0);
  {
    RunningServer server(held.handle());
    for (Client* client : {&half, &waiting, &streaming, &idle}) client->connect(server.port());
    half.send("GET /ha");
    waiting.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    responders.push_back(held.take());
    streaming.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    responders.push_back(held.take());
    responders.back()->begin_stream(200, "text/plain");
    EXPECT_EQ(idle.get("/echo").status, 200);
    for (const auto& responder : responders) responder->on_gone([&] { ++num_gone; });
    server.stop();
    EXPECT_EQ(num_gone, 2);
    EXPECT_EQ(server->counts().num_connections, 0U);
  }
  EXPECT_TRUE(half.is_closed());
  EXPECT_TRUE(waiting.is_closed());
  EXPECT_FALSE(streaming.answer().is_whole);
  for (const auto& responder : responders) {  // they outlive the server
    EXPECT_FALSE(responder->is_open());
    EXPECT_FALSE(responder->write("x"));
    responder->on_gone([] { FAIL(); });
  }
}

TEST(Server, MayBeDestroyedWithoutHavingRun) {
  Client client(0);
  {
    Server server({}, {.handle = echo});
    client.connect(server.port());
    client.send("GET /echo HTTP/1.1\r\nHost: test\r\n\r\n");
    server.every(1ms, [] {});
  }
  EXPECT_TRUE(client.is_closed());
}

TEST(Server, RunsInAForeignLoopOnSocketsOfOthers) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  std::string peer = "?";
  Server server({}, {.handle = [&](const Request& request, const ResponderPtr& responder) {
                  peer = request.peer;
                  echo(request, responder);
                }});
  server.adopt(sockets[0]);
  Client client{io::Descriptor(sockets[1])};
  client.send("GET /echo HTTP/1.1\r\nHost: test\r\n\r\n");
  while (peer == "?") server.poll();
  EXPECT_EQ(client.answer().body, "GET /echo ");
  EXPECT_EQ(peer, "");
  client.close();
  while (server.counts().num_connections > 0) server.poll();
}

TEST(Server, ListensToIPv6) {
  RunningServer server(
      Handlers{.handle = [](const Request& request, const ResponderPtr& responder) { responder->send({.body = request.peer}); }},
      ServerOptions{.address = "::1"});
  io::Descriptor socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(server.port());
  address.sin6_addr = in6addr_loopback;
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(Client(std::move(socket)).get("/").body, "::1");
}

TEST(Server, SaysWhyItCannotListen) {
  const Handlers handlers{.handle = echo};
  const Server first({}, handlers);
  EXPECT_ERROR(Server({.port = first.port()}, handlers), ErrorKind::kIo,
               "cannot listen on 127.0.0.1 port " + std::to_string(first.port()) + ": Address already in use");
  EXPECT_ERROR(Server({.address = "192.0.2.1"}, handlers), ErrorKind::kIo, "192.0.2.1 port 0: Cannot assign requested address");
  EXPECT_ERROR(Server({.address = "localhost"}, handlers), ErrorKind::kUsage, "'localhost' is no IPv4 or IPv6 address");
  EXPECT_ERROR(Server({}, {}), ErrorKind::kUsage, "needs a function that handles requests");
}

}  // namespace
}  // namespace quiver::http
