// What becomes of an answer: streams, answers that never come, clients that go or read slowly.
#include "quiver/http/server.h"

#include <cstring>
#include <latch>

#include "quiver/http/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::http {
namespace {

TEST(Responder, StreamsChunks) {
  RunningServer server([](const Request&, const ResponderPtr& responder) {
    responder->begin_stream(201, "text/event-stream", {{"Cache-Control", "no-cache"}});
    EXPECT_TRUE(responder->write("data: 1\n\n"));
    EXPECT_TRUE(responder->write(""));  // is no last chunk
    EXPECT_TRUE(responder->write(std::string(300, 'x')));
    responder->end();
  });
  Client client(server.port());
  const Answer answer = client.get("/");
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream");
  EXPECT_EQ(answer.body, "data: 1\n\n" + std::string(300, 'x'));
  EXPECT_TRUE(answer.is_whole);
  EXPECT_EQ(client.get("/").status, 201);
}

TEST(Responder, SendsEachChunkWhenItIsWritten) {
  Held held;
  RunningServer server(held.handle());
  Client client(server.port());
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  responder->begin_stream(200, "text/plain");
  EXPECT_THAT(client.line_block(), ::testing::HasSubstr("chunked"));
  for (const char* text : {"one", "two", "three"}) {
    EXPECT_TRUE(responder->write(text));
    EXPECT_EQ(client.read_chunk(), text);
  }
  EXPECT_TRUE(eventually([&] { return responder->pending_bytes() == 0; }));
  responder->end();
  EXPECT_EQ(client.read_chunk(), "");
  EXPECT_EQ(client.get("/echo").status, 200);
}

TEST(Responder, AnswersForAResponderThatIsDropped) {
  RunningServer server([](const Request& request, const ResponderPtr& responder) {
    if (request.path == "/throws") throw std::runtime_error("it is broken");
    if (request.path == "/stream") {
      responder->begin_stream(200, "text/plain");
      responder->write("part");
    }
  });
  Client client(server.port());
  const Answer dropped = client.get("/dropped");
  EXPECT_EQ(dropped.status, 500);
  EXPECT_EQ(dropped.body, "the program gave no answer\n");
  EXPECT_TRUE(client.is_closed());

  Client other(server.port());
  EXPECT_EQ(other.get("/throws").body, "it is broken\n");

  Client third(server.port());
  const Answer cut = third.get("/stream");
  EXPECT_EQ(cut.status, 200);
  EXPECT_EQ(cut.body, "part");
  EXPECT_FALSE(cut.is_whole);
}

TEST(Responder, AnswersForChecksThatThrow) {
  RunningServer server(Handlers{.check = [](const RequestHead&) -> std::optional<Response> { throw std::runtime_error("no check"); },
                                .handle = echo,
                                .refuse =
                                    [](int status, std::string_view message) {
                                      return Response{.status = status, .body = "{\"error\": \"" + std::string(message) + "\"}"};
                                    }});
  Client client(server.port());
  const Answer answer = client.get("/");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body, "{\"error\": \"no check\"}");
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
}

TEST(Responder, RefusesCallsOfAResponderThatAreOutOfPlace) {
  std::vector<std::string> errors;
  RunningServer server([&](const Request&, const ResponderPtr& responder) {
    const auto call = [&](const std::function<void()>& action) { errors.push_back(testing::error_of(action)); };
    call([&] { responder->write("early"); });
    call([&] { responder->end(); });
    call([&] { responder->send({.status = 99}); });
    call([&] { responder->send({.headers = {{"X", "a\r\nSet-Cookie: b"}}}); });
    call([&] { responder->send({.headers = {{"X Y", ""}}}); });
    call([&] { responder->send({.headers = {{"content-length", "3"}}}); });
    responder->send({.body = "fine"});
    call([&] { responder->send({}); });
    call([&] { responder->begin_stream(200, "text/plain"); });
  });
  Client client(server.port());
  EXPECT_EQ(client.get("/").body, "fine");
  using ::testing::HasSubstr;
  EXPECT_THAT(errors,
              ::testing::ElementsAre(HasSubstr("usage: write is out of place"), HasSubstr("end is out of place"),
                                     HasSubstr("99 is no status of an HTTP answer"), HasSubstr("'X' holds a control character"),
                                     HasSubstr("'X Y' is no name of an HTTP header"), HasSubstr("'Content-Length' is the server's own"),
                                     HasSubstr("send is out of place"), HasSubstr("begin_stream is out of place")));
}

TEST(Responder, TellsWhenTheClientGoesWhileNothingIsWritten) {
  Held held;
  RunningServer server(held.handle());
  for (const bool is_reset : {false, true}) {
    for (const bool has_begun : {false, true}) {
      Client client(server.port());
      client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
      const ResponderPtr responder = held.take();
      std::latch gone(1);
      responder->on_gone([&] { gone.count_down(); });
      if (has_begun) responder->begin_stream(200, "text/plain");
      EXPECT_TRUE(responder->is_open());
      is_reset ? client.reset() : client.close();
      EXPECT_TRUE(eventually([&] { return gone.try_wait(); }));
      EXPECT_FALSE(responder->is_open());
      EXPECT_FALSE(has_begun && responder->write("x"));
      EXPECT_EQ(responder->pending_bytes(), 0U);
      responder->send({});  // does nothing
      responder->end();
      std::latch again(1);
      responder->on_gone([&] { again.count_down(); });  // at once
      EXPECT_TRUE(eventually([&] { return again.try_wait(); }));
    }
  }
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Responder, TellsWhenAHalfClosedOrPipeliningClientGoes) {
  Held held;
  RunningServer server(held.handle());
  Client half(server.port());
  half.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  std::latch gone(2);
  const ResponderPtr first = held.take();
  first->on_gone([&] { gone.count_down(); });
  half.half_close();

  Client pipelining(server.port());
  pipelining.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\nGET /never-seen HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr second = held.take();
  second->on_gone([&] { gone.count_down(); });
  pipelining.close();
  EXPECT_TRUE(eventually([&] { return gone.try_wait(); }));
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(held.size(), 0U);
}

TEST(Responder, TellsNothingAboutAClientThatGoesAfterItsAnswer) {
  Held held;
  int num_gone = 0;
  RunningServer server(held.handle());
  Client client(server.port());
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  ResponderPtr responder = held.take();
  auto owned = std::make_shared<int>(0);
  responder->on_gone([&num_gone, owned] { ++num_gone; });
  responder->send({});
  EXPECT_EQ(owned.use_count(), 1);  // the function is gone
  client.answer();
  client.close();
  EXPECT_TRUE(server.has_no_connection());
  EXPECT_EQ(num_gone, 0);
}

TEST(Responder, CountsWhatASlowReaderLeavesAndCutsItOffBeyondTheLimit) {
  Held held;
  RunningServer server(held.handle(), Limits{.max_pending_bytes = 8 << 20});
  Client client(server.port(), /*receive_bytes=*/2048);
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  std::latch gone(1);
  responder->on_gone([&] { gone.count_down(); });
  responder->begin_stream(200, "text/plain");
  const std::string chunk(64 << 10, 'x');
  std::size_t given = 0, pending = 0;
  while (responder->write(chunk)) {
    given += chunk.size();
    pending = std::max(pending, responder->pending_bytes());
    ASSERT_LT(given, std::size_t{64} << 20);  // kernel buffers hold some megabytes
  }
  EXPECT_GT(pending, std::size_t{7} << 20);
  EXPECT_LE(pending, std::size_t{8} << 20);
  EXPECT_TRUE(eventually([&] { return gone.try_wait(); }));
  EXPECT_FALSE(responder->is_open());
  EXPECT_TRUE(server.has_no_connection());
}

TEST(Responder, SendsAllToASlowReaderWithinTheLimit) {
  Held held;
  RunningServer server(held.handle());
  Client client(server.port(), /*receive_bytes=*/4096);
  client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  const ResponderPtr responder = held.take();
  responder->begin_stream(200, "text/plain");
  std::string expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string chunk(1000, static_cast<char>('a' + i % 26));
    EXPECT_TRUE(responder->write(chunk));
    expected += chunk;
  }
  responder->end();
  EXPECT_EQ(client.answer().body, expected);
  EXPECT_TRUE(eventually([&] { return responder->pending_bytes() == 0; }));
}

}  // namespace
}  // namespace quiver::http
