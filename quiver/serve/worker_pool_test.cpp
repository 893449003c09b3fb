#include "quiver/serve/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "quiver/serve/test_support.h"

namespace quiver::serve {
namespace {

TEST(WorkerPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    WorkerPool pool(1);
    for (int i = 0; i < 100; ++i) pool.post([&, i] { order.push_back(i); });
  }
  ASSERT_EQ(order.size(), 100u) << "the end waits for all";
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(WorkerPool, SeveralThreadsWorkAtOnceAndWorkMayPostMore) {
  std::atomic<int> count{0};
  Gate gate;
  {
    WorkerPool pool(2);
    pool.post([&] { gate.pass(); });
    pool.post([&] {
      pool.post([&] { ++count; });
      gate.open();  // another thread waits for it
    });
    gate.wait_for_arrival();
  }
  EXPECT_EQ(count, 1);
}

TEST(WorkerPool, LetsGoOfWorkThatIsDone) {
  const auto held = std::make_shared<int>(1);
  WorkerPool pool(1);
  pool.post([held] {});
  EXPECT_TRUE(eventually([&] { return held.use_count() == 1; }));
}

}  // namespace
}  // namespace quiver::serve
