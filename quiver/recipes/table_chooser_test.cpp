#include "quiver/recipes/table_chooser.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(TableChooser, PromptsOfEqualRowsShareAGroup) {
  const auto table = std::make_shared<routing::GroupTable>(2);
  int passes = 0;
  TableChooser chooser(table, {"one", "two"}, [&passes](std::span<const Prompt> prompts, Progress&) {
    ++passes;
    auto rows = torch::zeros({static_cast<std::int64_t>(prompts.size()), 2});
    for (std::size_t i = 0; i < prompts.size(); ++i) rows[static_cast<std::int64_t>(i)][0] = prompts[i].front();
    return rows;
  });
  NoProgress quiet;
  const std::vector<Prompt> prompts = {{1, 2}, {3}, {1, 4}, {3}};
  const std::vector<std::int32_t> expected = {1, 2, 1, 2};
  EXPECT_EQ(chooser.groups_of(prompts, quiet), expected);
  EXPECT_EQ(chooser.groups_of(prompts, quiet), expected);
  EXPECT_EQ(passes, 1);
}

TEST(TableChooser, NamesTheAdapterWhoseScoreIsNotFinite) {
  const std::vector<Prompt> prompts = {{1}};
  NoProgress quiet;
  TableChooser chooser(std::make_shared<routing::GroupTable>(2), {"one", "two"}, [](std::span<const Prompt>, Progress&) {
    return torch::tensor({{0.5, kNan}});
  });
  EXPECT_ERROR(chooser.groups_of(prompts, quiet), ErrorKind::kMismatch, "the score of adapter 'two' for a prompt is not finite");
  TableChooser shares(std::make_shared<routing::GroupTable>(1), {},
                      [](std::span<const Prompt>, Progress&) { return torch::tensor({{kNan}}); });
  EXPECT_ERROR(shares.groups_of(prompts, quiet), ErrorKind::kMismatch, "the score of all adapters for a prompt is not finite");
}

TEST(CheckFinite, NamesTheAdapterAndTheProjection) {
  const std::vector<std::string> paths = {"q_proj", "k_proj"}, adapters = {"one", "two"};
  auto scores = torch::zeros({3, 2, 2}, torch::kDouble);
  EXPECT_NO_THROW(check_finite(scores, paths, adapters));
  scores[2][1][1] = kNan;
  EXPECT_ERROR(check_finite(scores, paths, adapters), ErrorKind::kMismatch, "the score of adapter 'two' at 'k_proj' is not finite");
  scores[2][1][0] = kNan;
  EXPECT_ERROR(check_finite(scores, paths, adapters), ErrorKind::kMismatch, "the input of 'k_proj' is not finite on a prompt");
}

}  // namespace
}  // namespace quiver::recipes
