#include "quiver/base/near.h"

#include <gtest/gtest.h>

namespace quiver {
namespace {

TEST(EditDistance, CountsEditsAndSwapsOfNeighbours) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("qnil", "qnli"), 1);
  EXPECT_EQ(edit_distance("QNLI", "qnli"), 0);
}

TEST(Nearest, NamesWhatWasProbablyMeant) {
  EXPECT_EQ(nearest("qnil", {"mnli", "qnli", "sst2"}), "qnli");
  EXPECT_EQ(nearest("task_363", {"task363", "task364"}), "task363");
}

TEST(Nearest, StaysSilentWhenNothingIsNear) {
  EXPECT_EQ(nearest("zebra", {"mnli", "qnli"}), "");
  EXPECT_EQ(nearest("ab", {"xy"}), "");
  EXPECT_EQ(nearest("", {"a"}), "");
  EXPECT_EQ(did_you_mean("zebra", {}), "");
}

TEST(DidYouMean, EndsAMessage) { EXPECT_EQ(did_you_mean("qnl", {"qnli"}), " (did you mean 'qnli'?)"); }

}  // namespace
}  // namespace quiver
