#include "quiver/schedule/fair_queue.h"

#include <gtest/gtest.h>

#include <vector>

#include "quiver/base/random.h"

namespace quiver::schedule {
namespace {

/// Takes the next request of the queue, and charges its client.
std::optional<FairQueue::Id> take(FairQueue& queue, const std::map<FairQueue::Id, std::string>& clients, std::int64_t tokens = 1) {
  const auto id = queue.next({});
  if (!id) return id;
  queue.erase(clients.at(*id), *id);
  queue.charge(clients.at(*id), tokens);
  return id;
}

TEST(FairQueue, KeepsTheOrderOfOneClient) {
  FairQueue queue;
  EXPECT_TRUE(queue.is_empty());
  EXPECT_EQ(queue.next({}), std::nullopt);
  for (const FairQueue::Id id : {1, 2, 3}) queue.push_back("a", id);
  EXPECT_EQ(queue.size(), 3);
  EXPECT_EQ(queue.next({}), 1u);
  EXPECT_EQ(queue.next({1, 2}), 3u);
  EXPECT_EQ(queue.next({1, 2, 3}), std::nullopt);
  queue.erase("a", 2);
  queue.push_front("a", 4);
  EXPECT_EQ(queue.size(), 3);
  EXPECT_EQ(queue.next({}), 4u);
  EXPECT_EQ(queue.next({4, 1}), 3u);
  queue.erase("a", 9);       // nobody's
  queue.erase("nobody", 1);  // no client
  queue.charge("nobody", 7);
  EXPECT_EQ(queue.size(), 3);
}

TEST(FairQueue, NextIsTheClientThatWasServedLeast) {
  FairQueue queue;
  queue.push_back("a", 1);
  queue.push_back("b", 2);
  queue.charge("a", 10);
  EXPECT_EQ(queue.next({}), 2u);
  queue.charge("b", 11);
  EXPECT_EQ(queue.next({}), 1u);
  EXPECT_EQ(queue.next({1}), 2u) << "of those that are not passed over";
}

TEST(FairQueue, WhoComesLateIsServedLikeTheLeastOfThoseThatAreThere) {
  FairQueue queue;
  queue.push_back("a", 1);
  queue.push_back("b", 2);
  queue.charge("a", 100);
  queue.charge("b", 300);
  queue.push_back("c", 3);  // as if it had been served 100
  EXPECT_EQ(queue.next({1}), 3u);
  queue.charge("c", 1);
  EXPECT_EQ(queue.next({}), 1u);
  queue.erase("c", 3);
  queue.push_back("c", 4);  // it is still there
  queue.charge("a", 2);
  EXPECT_EQ(queue.next({}), 4u);
  queue.erase("c", 4);
  queue.forget("c");
  queue.forget("a");  // it waits: it stays
  queue.push_back("c", 5);
  queue.charge("c", 1);
  EXPECT_EQ(queue.next({}), 1u);
}

TEST(FairQueue, AnEmptyQueueForgetsWhatWasServed) {
  FairQueue queue;
  queue.push_back("a", 1);
  queue.charge("a", 1000);
  queue.erase("a", 1);
  queue.forget("a");
  queue.push_back("b", 2);
  queue.push_back("a", 3);
  queue.charge("b", 1);
  EXPECT_EQ(queue.next({}), 3u);
}

TEST(FairQueue, ClientsGetEqualSharesOfTokensHoweverLargeTheirRequests) {
  FairQueue queue;
  RandomStream random(7, "fair queue");
  std::map<FairQueue::Id, std::string> clients;
  const std::map<std::string, std::int64_t> sizes = {{"long", 100}, {"middle", 10}, {"short", 1}};
  FairQueue::Id next = 0;
  const auto submit = [&](const std::string& client) {
    clients[next] = client;
    queue.push_back(client, next++);
  };
  for (const auto& [client, size] : sizes) submit(client);
  std::map<std::string, std::int64_t> served;
  for (int i = 0; i < 20000; ++i) {
    const auto id = queue.next({});
    ASSERT_TRUE(id.has_value());
    const auto& client = clients.at(*id);
    const auto cost = 1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(2 * sizes.at(client) - 1)));
    served[client] += cost;
    submit(client);  // before the other goes, so that the client stays
    take(queue, clients, cost);
    for (const auto& [a, tokens] : served) {
      for (const auto& [b, other] : served) EXPECT_LE(tokens - other, 200) << a << " before " << b;
    }
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(served.at("short"), 10000);
}

}  // namespace
}  // namespace quiver::schedule
