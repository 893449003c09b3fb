// Numbers of connections: limits, descriptors, memory.
#include "quiver/http/server.h"
#include "quiver/http/test_support.h"

namespace quiver::http {
namespace {

/// Another limit of open files, until the end of the scope.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t limit) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit now{limit, before_.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &now) != 0)
      throw std::runtime_error("the limit of open files cannot be set: " + std::to_string(before_.rlim_max));
  }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

 private:
  rlimit before_{};
};

TEST(Connections, BeyondTheLimitAreRefusedInWords) {
  RunningServer server(echo, Limits{.max_connections = 3});
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) clients.emplace_back(server.port());
  ASSERT_TRUE(server.has_connections(3));
  for (int i = 0; i < 5; ++i) {
    Client client(server.port());
    const Answer answer = client.answer();  // before it has asked
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.body, "there are too many connections\n");
    EXPECT_EQ(answer.headers.at("connection"), "close");
    EXPECT_TRUE(client.is_closed());
  }
  EXPECT_EQ(server->counts().refused, 5U);
  EXPECT_EQ(server->counts().accepted, 8U);
  EXPECT_EQ(clients[0].get("/echo").status, 200);
  clients.pop_back();
  ASSERT_TRUE(server.has_connections(2));
  EXPECT_TRUE(server.serves());
}

TEST(Connections, OfOneAddressAreLimited) {
  RunningServer server(echo, Limits{.max_connections = 10, .max_connections_per_address = 2});
  for (int round = 0; round < 3; ++round) {
    Client first(server.port()), second(server.port());
    ASSERT_TRUE(server.has_connections(2));
    EXPECT_EQ(Client(server.port()).answer().status, 503);
    EXPECT_EQ(first.get("/echo").status, 200);
    first.close();
    second.close();
    ASSERT_TRUE(server.has_no_connection());
  }
}

TEST(Connections, AreAcceptedAgainOnceThereAreDescriptors) {
  RunningServer server(echo);
  Client before(server.port()), client(0), other(0);
  EXPECT_EQ(before.get("/echo").status, 200);
  {
    const DescriptorLimit limit(static_cast<rlim_t>(other.descriptor()) + 8);
    std::vector<io::Descriptor> fillers;
    for (int filler; (filler = ::dup(before.descriptor())) >= 0;) fillers.emplace_back(filler);
    ASSERT_EQ(errno, EMFILE);
    client.connect(server.port());  // the kernel completes it; the server has no descriptor for it
    client.send("GET /echo HTTP/1.1\r\nHost: test\r\n\r\n");
    EXPECT_EQ(before.get("/echo").status, 200);
    pollfd answered{client.descriptor(), POLLIN, 0};
    EXPECT_EQ(::poll(&answered, 1, 250), 0);  // two pauses
  }
  EXPECT_EQ(client.answer().status, 200);
  other.connect(server.port());
  EXPECT_EQ(other.get("/echo").status, 200);
}

TEST(Connections, ThatWaitByTheThousandTakeLittleMemory) {
  const DescriptorLimit limit(4096);
  Held held;
  RunningServer server(held.handle(), Limits{.max_connections = 3000, .max_connections_per_address = 3000});
  EXPECT_TRUE(server.serves());
  const double before = resident_mib();
  std::vector<Client> clients;
  for (int i = 0; i < 1000; ++i) {
    clients.emplace_back(server.port());
    const std::string body(10'000, 'b');
    clients.back().send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10000\r\n\r\n" + body);
  }
  for (Client& client : clients) EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(server.has_connections(1000));
  const double idle = resident_mib() - before;
  for (Client& client : clients) client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return held.size() == 1000; }));
  std::vector<ResponderPtr> responders;
  for (int i = 0; i < 1000; ++i) {
    responders.push_back(held.take());
    responders.back()->begin_stream(200, "text/event-stream");
    responders.back()->write(": ping\n\n");
  }
  for (Client& client : clients) client.line_block();
  const double streaming = resident_mib() - before;
  std::printf("1,000 idle connections: %.1f MiB; 1,000 open streams: %.1f MiB\n", idle, streaming);
  EXPECT_LT(idle, 60 * kMemoryFactor);
  EXPECT_LT(streaming, 60 * kMemoryFactor);
  EXPECT_TRUE(server.serves());
  clients.clear();
  EXPECT_TRUE(server.has_no_connection());
}

}  // namespace
}  // namespace quiver::http
