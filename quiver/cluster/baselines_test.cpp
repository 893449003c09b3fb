#include "quiver/cluster/baselines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::cluster {
namespace {

using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> task_names(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back("task" + std::to_string(1000 + i));
  return names;
}

TEST(RandomTasks, DrawsEveryTaskIndependently) {
  const auto names = task_names(4000);
  RandomStream random(1, "test");
  const auto result = random_tasks(names, 10, random);
  RandomStream again(1, "test");
  std::vector<std::int64_t> drawn;
  for (std::size_t i = 0; i < names.size(); ++i) drawn.push_back(static_cast<std::int64_t>(again.below(10)));
  EXPECT_EQ(result.labels, canonical_labels(drawn));
  EXPECT_EQ(result.num_empty, 0);
  for (const auto& members : result.clusters()) {
    SCOPED_TRACE(members.front());
    EXPECT_NEAR(static_cast<double>(members.size()), 400, 5 * 19);  // five standard deviations of a binomial
  }
}

TEST(RandomTasks, LeavesOutClustersThatNoTaskIsDrawnInto) {
  // T tasks leave K (1 - 1/K)^T of K clusters empty on average.
  double empty = 0;
  for (int trial = 0; trial < 500; ++trial) {
    SCOPED_TRACE(trial);
    RandomStream random(7, "test/" + std::to_string(trial));
    const auto result = random_tasks(task_names(12), 10, random);
    const std::set<std::int64_t> labels(result.labels.begin(), result.labels.end());
    ASSERT_EQ(static_cast<std::int64_t>(labels.size()) + result.num_empty, 10);
    ASSERT_EQ(*labels.rbegin() + 1, static_cast<std::int64_t>(labels.size()));
    for (const auto& members : result.clusters()) ASSERT_FALSE(members.empty());
    empty += static_cast<double>(result.num_empty);
  }
  EXPECT_NEAR(empty / 500, 10 * std::pow(0.9, 12), 0.25);
}

TEST(RandomTasks, DoesNotDependOnTheOrderOfTheNames) {
  auto names = task_names(30);
  RandomStream random(3, "test"), again(3, "test");
  const auto result = random_tasks(names, 4, random);
  std::reverse(names.begin(), names.end());
  const auto reversed = random_tasks(names, 4, again);
  EXPECT_EQ(reversed.names, result.names);
  EXPECT_EQ(reversed.labels, result.labels);
  EXPECT_EQ(random_tasks({}, 4, random).num_empty, 4);
  names[0] = names[1];
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { random_tasks(names, 4, random); }), HasSubstr("two tasks are called 'task1028'"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { random_tasks(names, 0, random); }), HasSubstr("num_clusters is 0"));
}

TEST(RandomExamples, AreSplitIntoPartsOfEqualSize) {
  RandomStream random(1, "test");
  const auto parts = random_examples(103, 10, random);
  std::map<std::int64_t, int> sizes;
  for (const auto part : parts) ++sizes[part];
  for (std::int64_t k = 0; k < 10; ++k) EXPECT_EQ(sizes[k], k < 3 ? 11 : 10) << k;
  RandomStream same(1, "test"), other(2, "test");
  EXPECT_EQ(random_examples(103, 10, same), parts);
  EXPECT_NE(random_examples(103, 10, other), parts);
}

TEST(RandomExamples, PutTwoExamplesTogetherAsOftenAsChanceDoes) {
  int together = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    RandomStream random(5, "test/" + std::to_string(trial));
    const auto parts = random_examples(8, 4, random);
    together += parts[0] == parts[1];
  }
  EXPECT_NEAR(together / 4000.0, 1.0 / 7, 0.025);  // of the 7 others one shares the part
}

TEST(RandomExamples, RefuseMorePartsThanExamples) {
  RandomStream random(1, "test");
  EXPECT_THAT(random_examples(3, 1, random), ElementsAre(0, 0, 0));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { random_examples(3, 4, random); }), HasSubstr("3 examples cannot be split into 4 parts"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { random_examples(3, 0, random); }), HasSubstr("into 0 parts"));
}

TEST(ClusterVectors, FindsPlantedGroupsAndJudgesThemByTheVectors) {
  const auto centers = 4 * draw({3, 6}, 1);
  const auto vectors = centers.repeat({5, 1}) + 0.2 * draw({15, 6}, 2);
  const auto names = task_names(15);
  const auto result = cluster_vectors(names, vectors, {.num_clusters = 3});
  EXPECT_THAT(result.labels, ElementsAre(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2));
  EXPECT_EQ(result.names, names);
  const auto grouped = vectors.to(torch::kDouble).reshape({5, 3, 6});
  EXPECT_NEAR(result.inertia, (grouped - grouped.mean(0)).square().sum().item<double>(), 1e-9);
  EXPECT_NEAR(result.silhouette, silhouette(vectors, result.labels), 1e-12);
  const auto unit = vectors.to(torch::kDouble) / vectors.to(torch::kDouble).norm(2, 1, true);
  EXPECT_TRUE(torch::allclose(result.similarity, unit.matmul(unit.t()), 1e-12, 1e-12));
}

TEST(ClusterVectors, DoesNotDependOnTheOrderOfTheNames) {
  auto names = task_names(20);
  const auto vectors = draw({20, 4}, 3);
  const auto result = cluster_vectors(names, vectors, {.num_clusters = 4});
  std::reverse(names.begin(), names.end());
  const auto reversed = cluster_vectors(names, vectors.flip(0), {.num_clusters = 4});
  EXPECT_EQ(reversed.names, result.names);
  EXPECT_EQ(reversed.labels, result.labels);
  EXPECT_TRUE(reversed.similarity.equal(result.similarity));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           cluster_vectors(names, draw({19, 4}, 3), {.num_clusters = 4});
                         }),
              HasSubstr("20 names do not fit vectors Float [19, 4]"));
  names[3] = names[4];
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { cluster_vectors(names, vectors, {.num_clusters = 4}); }),
              HasSubstr("two vectors are called 'task1015'"));
}

}  // namespace
}  // namespace quiver::cluster
