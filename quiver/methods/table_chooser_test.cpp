#include "quiver/methods/table_chooser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <atomic>
#include <limits>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/testing/message_of.h"

namespace quiver::methods {
namespace {

using quiver::testing::message_of;
using routing::GroupTable;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// A chooser whose row for a prompt is (first token, length), and what it was asked for.
struct Counted {
  std::shared_ptr<GroupTable> table = std::make_shared<GroupTable>(2);
  std::vector<std::size_t> asked;
  bool fails = false;
  NoProgress progress;
  TableChooser chooser;

  explicit Counted(std::size_t most_prompts)
      : chooser(
            table, {},
            [this](std::span<const Prompt> prompts, Progress&) {
              if (fails) fail(ErrorKind::kUsage, "the base is busy");
              asked.push_back(prompts.size());
              auto rows = torch::empty({static_cast<std::int64_t>(prompts.size()), 2});
              for (std::size_t i = 0; i < prompts.size(); ++i) {
                rows[static_cast<std::int64_t>(i)][0] = prompts[i].front();
                rows[static_cast<std::int64_t>(i)][1] = static_cast<double>(prompts[i].size());
              }
              return rows;
            },
            most_prompts) {}
  std::vector<routing::GroupLease> groups_of(const std::vector<Prompt>& prompts) { return chooser.groups_of(prompts, progress); }
  std::vector<float> row(const routing::GroupLease& group) const {
    const auto rows = table->rows();
    const auto values = rows.at(*group);
    return {values.begin(), values.end()};
  }
};

TEST(TableChooser, GivesPromptsOfEqualRowsOneGroupAndComputesEachPromptOnce) {
  Counted counted(10);
  const auto groups = counted.groups_of({{5, 1}, {7}, {5, 2}, {5, 1}});
  EXPECT_EQ(*groups[0], *groups[2]);
  EXPECT_EQ(*groups[0], *groups[3]);
  EXPECT_NE(*groups[0], *groups[1]);
  EXPECT_THAT(counted.row(groups[0]), ElementsAre(5, 2));
  EXPECT_THAT(counted.row(groups[1]), ElementsAre(7, 1));
  EXPECT_EQ(*counted.groups_of({{7}}).at(0), *groups[1]);
  EXPECT_THAT(counted.asked, ElementsAre(3));
}

TEST(TableChooser, StaysBoundedOverManyCallsAndHeldRowsStayRight) {
  Counted counted(8);
  const auto held = counted.groups_of({{1000, 1, 2}});
  for (std::int32_t call = 0; call < 100; ++call) {
    const std::vector<Prompt> prompts = {{call}, {call, 1}, {3}};
    const auto groups = counted.groups_of(prompts);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_THAT(counted.row(groups[i]), ElementsAre(prompts[i].front(), prompts[i].size())) << call;
    }
    EXPECT_LE(counted.table->num_groups(), 10) << call;  // group 0, 8 that are remembered and the one that is held
  }
  EXPECT_THAT(counted.row(held[0]), ElementsAre(1000, 3));
}

TEST(TableChooser, ForgetsWhatWasAskedForLongest) {
  Counted counted(3);
  counted.groups_of({{1}, {2}, {3}});
  counted.groups_of({{1}});
  counted.groups_of({{4}});  // instead of 2
  counted.groups_of({{1}, {3}, {4}});
  EXPECT_THAT(counted.asked, ElementsAre(3, 1));
  counted.groups_of({{2}});
  EXPECT_THAT(counted.asked, ElementsAre(3, 1, 1));
  counted.chooser.forget();
  EXPECT_EQ(counted.table->num_groups(), 1);
}

TEST(TableChooser, ServesACallOfMorePromptsThanItKeeps) {
  Counted counted(2);
  auto groups = counted.groups_of({{1}, {2}, {3}, {4}});
  EXPECT_THAT(counted.row(groups[0]), ElementsAre(1, 1));
  EXPECT_THAT(counted.row(groups[3]), ElementsAre(4, 1));
  EXPECT_EQ(counted.table->num_groups(), 5);
  groups.clear();
  EXPECT_EQ(counted.table->num_groups(), 3);
}

TEST(TableChooser, ACallThatFailsChangesNothing) {
  Counted counted(3);
  const auto before = counted.groups_of({{1}, {2}, {3}});
  counted.fails = true;
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { counted.groups_of({{4}, {1}}); }), HasSubstr("busy"));
  EXPECT_EQ(counted.table->num_groups(), 4);
  EXPECT_EQ(counted.groups_of({{1}, {2}, {3}}), before);  // without asking for rows
}

TEST(TableChooser, ServesSeveralThreadsWithinItsBound) {
  const auto table = std::make_shared<GroupTable>(1);
  NoProgress progress;
  TableChooser chooser(
      table, {},
      [](std::span<const Prompt> prompts, Progress&) {
        if (prompts.size() == 1 && prompts[0].front() % 7 == 0) fail(ErrorKind::kUsage, "no sevens alone");
        auto rows = torch::empty({static_cast<std::int64_t>(prompts.size()), 1});
        for (std::size_t i = 0; i < prompts.size(); ++i) rows[static_cast<std::int64_t>(i)][0] = prompts[i].front();
        return rows;
      },
      5);
  std::vector<std::jthread> threads;
  std::atomic<int> wrong{0}, refused{0};
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      RandomStream random(thread, "prompts");
      for (int call = 0; call < 300; ++call) {
        std::vector<Prompt> prompts(1 + random.below(3));
        for (auto& prompt : prompts) prompt = {static_cast<std::int32_t>(random.below(20))};
        try {
          const auto groups = chooser.groups_of(prompts, progress);
          const auto rows = table->rows();
          for (std::size_t i = 0; i < prompts.size(); ++i) {
            if (rows.at(*groups[i])[0] != static_cast<float>(prompts[i].front())) ++wrong;
          }
        } catch (const Error&) {
          ++refused;  // the others go on
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(refused, 0);
  EXPECT_LE(table->num_groups(), 6);
  chooser.forget();
  EXPECT_EQ(table->num_groups(), 1);
}

TEST(TableChooser, RefusesRowsThatAreNotOfTheTablesWidth) {
  NoProgress progress;
  const auto table = std::make_shared<GroupTable>(2);
  TableChooser chooser(table, {}, [](std::span<const Prompt>, Progress&) { return torch::zeros({1, 3}); });
  EXPECT_THAT(message_of(ErrorKind::kInternal, [&] { chooser.groups_of(std::vector<Prompt>{{1}}, progress); }),
              HasSubstr("rows of prompts: Float [1, 3]"));
  EXPECT_EQ(table->num_groups(), 1);
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
  EXPECT_ERROR(check_finite(scores, paths, adapters), ErrorKind::kMismatch,
               "the score of all adapters at 'k_proj' is not finite on a prompt");
}

}  // namespace
}  // namespace quiver::methods
