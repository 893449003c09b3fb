#include "quiver/routing/group_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using ::testing::ElementsAre;

TEST(GroupTable, HoldsARowAsLongAsItsLeaseLives) {
  GroupTable table(2);
  auto one = table.hold(std::vector<float>{1, 2}), two = table.hold(std::vector<float>{3, 4});
  const auto same = table.hold(std::vector<float>{1, 2});
  EXPECT_EQ(*one, 1);
  EXPECT_EQ(*two, 2);
  EXPECT_EQ(same, one);
  const auto before = table.rows();
  one.reset();
  two.reset();
  EXPECT_EQ(table.num_groups(), 2);
  const auto three = table.hold(std::vector<float>{5, 6}), four = table.hold(std::vector<float>{7, 8});
  EXPECT_EQ(*three, 2);  // the place that is free
  EXPECT_EQ(*four, 3);
  EXPECT_THAT(table.rows().at(0), ElementsAre(0, 0));
  EXPECT_THAT(table.rows().at(1), ElementsAre(1, 2));
  EXPECT_THAT(table.rows().at(2), ElementsAre(5, 6));
  EXPECT_THAT(table.rows().at(3), ElementsAre(7, 8));
  EXPECT_THAT(before.at(*same), ElementsAre(1, 2));
}

TEST(GroupTable, LeasesMayOutliveIt) {
  GroupLease lease;
  {
    GroupTable table(1);
    lease = table.hold(std::vector<float>{1});
  }
  EXPECT_EQ(*lease, 1);
}

TEST(GroupTable, RefusesARowOfAnotherWidthAndAGroupThatItLacks) {
  GroupTable table(2);
  EXPECT_ERROR(table.hold(std::vector<float>{1}), ErrorKind::kInternal, "a row of 1 in a table of width 2");
  EXPECT_ERROR(table.rows().at(4), ErrorKind::kInternal, "group 4 of 1");
  EXPECT_ERROR(table.rows().at(-1), ErrorKind::kInternal, "group -1 of 1");
  EXPECT_ERROR(GroupTable(0), ErrorKind::kInternal, "a table of width 0");
}

}  // namespace
}  // namespace quiver::routing
