#include "quiver/base/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "quiver/base/random.h"

namespace quiver {
namespace {

TEST(Sha256, MatchesFips180Examples) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Xxh3, MatchesXxhsum) {  // xxhsum -H2
  EXPECT_EQ(xxh3_hex({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(xxh3_hex(std::as_bytes(std::span("abc", 3))), "06b05ab6733a618578af5f94892f3950");
}

TEST(RandomStream, DependsOnSeedAndNameOnly) {
  RandomStream a(7, "init"), b(7, "init"), c(7, "order"), d(8, "init");
  const auto first = a.next();
  EXPECT_EQ(first, b.next());
  EXPECT_NE(first, c.next());
  EXPECT_NE(first, d.next());
}

TEST(RandomStream, ShufflesIntoAPermutation) {
  std::vector<int> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  RandomStream(3, "shuffle").shuffle(values);
  EXPECT_FALSE(std::ranges::is_sorted(values));
  std::ranges::sort(values);
  EXPECT_EQ(values, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(RandomStream, BelowStaysBelowAndReachesEveryValue) {
  RandomStream stream(1, "below");
  std::vector<int> seen(5, 0);
  for (int i = 0; i < 1000; ++i) ++seen.at(stream.below(5));
  for (const int count : seen) EXPECT_GT(count, 140) << count;
}

}  // namespace
}  // namespace quiver
