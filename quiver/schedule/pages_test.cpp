#include "quiver/schedule/pages.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::schedule {
namespace {

using Runs = std::vector<std::pair<std::int64_t, std::int64_t>>;

Runs runs(const std::vector<RowSpan>& rows) {
  Runs result;
  for (const auto& run : rows) result.emplace_back(run.first, run.length);
  return result;
}

TEST(RowSpans, AreCutAndJoined) {
  std::vector<RowSpan> rows;
  append_rows(rows, {4, 2});
  append_rows(rows, {6, 3});
  append_rows(rows, {20, 0});
  append_rows(rows, {2, 2});
  EXPECT_EQ(runs(rows), (Runs{{4, 5}, {2, 2}}));
  EXPECT_EQ(count_rows(rows), 7);
  EXPECT_EQ(runs(part_of_rows(rows, 0, 7)), runs(rows));
  EXPECT_EQ(runs(part_of_rows(rows, 3, 3)), (Runs{{7, 2}, {2, 1}}));
  EXPECT_EQ(runs(part_of_rows(rows, 5, 9)), (Runs{{2, 2}}));
  EXPECT_EQ(runs(part_of_rows(rows, 7, 1)), Runs{});
}

TEST(CachePages, GivesOneRunWhereThereIsOneAndTheSmallestThatFits) {
  CachePages pages(41, 4);  // the last row belongs to no page
  EXPECT_EQ(pages.num_pages(), 10);
  std::vector<RowSpan> a, b, c, d;
  std::optional lease_a = pages.take(9, a), lease_b = pages.take(4, b);
  const auto lease_c = pages.take(6, c);
  EXPECT_EQ(runs(a), (Runs{{0, 9}}));
  EXPECT_EQ(runs(b), (Runs{{12, 4}}));
  EXPECT_EQ(runs(c), (Runs{{16, 6}}));
  EXPECT_EQ(pages.num_free(), 4);
  lease_b.reset();
  const auto lease_d = pages.take(3, d);  // into the place of b, though the end is free, too
  EXPECT_EQ(runs(d), (Runs{{12, 3}}));
  lease_a.reset();
  EXPECT_EQ(pages.num_free(), 7);
  std::vector<RowSpan> e;
  const auto lease_e = pages.take(26, e);  // no run is as long: the longest first
  EXPECT_EQ(runs(e), (Runs{{24, 16}, {0, 10}}));
  EXPECT_EQ(pages.num_free(), 0);
  EXPECT_ERROR(pages.take(1, e), ErrorKind::kInternal, "1 pages of a KV cache that has 0 free");
}

TEST(CachePages, APageIsFreedWithItsLastLease) {
  CachePages pages(40, 4);
  std::vector<RowSpan> rows;
  std::optional<PageLease> all = pages.take(18, rows), none;
  std::optional first = pages.share(part_of_rows(rows, 0, 5));  // two pages, the second in part
  std::optional second = pages.share(part_of_rows(rows, 3, 1));
  EXPECT_EQ(pages.num_free(), 5);
  all.reset();
  EXPECT_EQ(pages.num_free(), 8);
  first.reset();
  EXPECT_EQ(pages.num_free(), 9);
  none.emplace(std::move(*second));
  second.reset();
  EXPECT_EQ(pages.num_free(), 9);
  none.reset();
  EXPECT_EQ(pages.num_free(), 10);
  EXPECT_ERROR(pages.share(rows), ErrorKind::kInternal, "is shared and was free");
  EXPECT_ERROR(CachePages(3, 4), ErrorKind::kUsage, "a KV cache of 3 rows in pages of 4");
  EXPECT_ERROR(CachePages(3, 0), ErrorKind::kUsage, "a KV cache of 3 rows in pages of 0");
}

}  // namespace
}  // namespace quiver::schedule
