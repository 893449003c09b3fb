#include "quiver/cluster/kmeans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <set>

#include "quiver/base/error.h"
#include "quiver/cluster/partition.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::cluster {
namespace {

using quiver::testing::seeded;
using ::testing::ElementsAre;

/// Five points around each of four distant corners, in turns.
torch::Tensor four_groups(std::uint64_t seed) {
  auto generator = seeded(seed);
  const auto corners = torch::tensor({{0.0, 0.0}, {10.0, 0.0}, {0.0, 10.0}, {10.0, 10.0}}, torch::kDouble);
  return corners.repeat({5, 1}) + 0.3 * torch::randn({20, 2}, generator, torch::kDouble);
}

TEST(KMeans, FindsSeparateGroups) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const auto points = four_groups(seed);
    const auto result = kmeans(points, {.num_clusters = 4, .seed = seed});
    const auto labels = canonical_labels(result.labels);
    for (std::size_t i = 0; i < 20; ++i) ASSERT_EQ(labels[i], static_cast<std::int64_t>(i % 4)) << "seed " << seed;
    const auto means = points.reshape({5, 4, 2}).mean(0);
    const auto expected = (points.reshape({5, 4, 2}) - means).square().sum().item<double>();
    EXPECT_NEAR(result.inertia, expected, 1e-9 * expected);
    EXPECT_TRUE(torch::allclose(result.centers[result.labels[0]], means[0]));
  }
}

TEST(KMeans, InertiaIsThatOfItsLabelsAndCannotFallByMovingAPointToANearerCenter) {
  auto generator = seeded(3);
  const auto points = torch::randn({60, 5}, generator);
  const auto result = kmeans(points, {.num_clusters = 7});
  const auto distances = torch::cdist(points.to(torch::kDouble), result.centers).square();
  const auto nearest = std::get<0>(distances.min(1));
  const auto own = distances.gather(1, torch::tensor(result.labels).unsqueeze(1)).squeeze(1);
  EXPECT_TRUE(torch::allclose(own, nearest, 1e-9, 1e-9));
  EXPECT_NEAR(own.sum().item<double>(), result.inertia, 1e-9 * result.inertia);
}

TEST(KMeans, DependsOnItsSeedAlone) {
  auto generator = seeded(4);
  const auto points = torch::randn({50, 3}, generator);
  const auto first = kmeans(points, {.num_clusters = 6, .seed = 7, .restarts = 3});
  const auto again = kmeans(points, {.num_clusters = 6, .seed = 7, .restarts = 3});
  EXPECT_EQ(first.labels, again.labels);
  EXPECT_EQ(first.inertia, again.inertia);
}

TEST(KMeans, MoreRestartsAreNeverWorse) {
  auto generator = seeded(5);
  const auto points = torch::randn({80, 4}, generator);
  const auto few = kmeans(points, {.num_clusters = 9, .restarts = 1});
  const auto many = kmeans(points, {.num_clusters = 9, .restarts = 20});
  EXPECT_LE(many.inertia, few.inertia);
}

TEST(KMeans, FillsEveryClusterEvenWhenPointsCoincide) {
  const auto result = kmeans(torch::ones({6, 2}), {.num_clusters = 4});
  EXPECT_EQ(std::set<std::int64_t>(result.labels.begin(), result.labels.end()).size(), 4);
  EXPECT_EQ(result.inertia, 0);
}

TEST(KMeans, OfAsManyClustersAsPointsPutsEachAlone) {
  auto generator = seeded(6);
  const auto result = kmeans(torch::randn({7, 3}, generator), {.num_clusters = 7});
  EXPECT_EQ(std::set<std::int64_t>(result.labels.begin(), result.labels.end()).size(), 7);
  EXPECT_EQ(result.inertia, 0);
}

TEST(KMeans, OfOneClusterIsTheMean) {
  const auto points = torch::tensor({{0.0, 0.0}, {2.0, 4.0}});
  const auto result = kmeans(points, {.num_clusters = 1});
  EXPECT_TRUE(result.centers.equal(torch::tensor({{1.0, 2.0}}, torch::kDouble)));
  EXPECT_EQ(result.inertia, 10);
}

TEST(KMeans, RefusesWhatItCannotCluster) {
  const auto points = torch::ones({3, 2});
  EXPECT_ERROR(kmeans(points, {.num_clusters = 4}), ErrorKind::kUsage, "num_clusters 4 does not fit 3 points");
  EXPECT_ERROR(kmeans(points, {.num_clusters = 0}), ErrorKind::kUsage, "num_clusters 0 does not fit 3 points");
  EXPECT_ERROR(kmeans(points, {.num_clusters = 2, .restarts = 0}), ErrorKind::kUsage, "at least one restart and one iteration");
  EXPECT_ERROR(kmeans(points * std::numeric_limits<double>::quiet_NaN(), {.num_clusters = 2}), ErrorKind::kUsage, "NaN or infinite");
  EXPECT_ERROR(kmeans(torch::ones({3}), {.num_clusters = 2}), ErrorKind::kUsage, "these have 1 dimensions");
}

TEST(Partition, NumbersClustersByTheirFirstMember) {
  EXPECT_THAT(canonical_labels(std::vector<std::int64_t>{5, 2, 5, 9, 2}), ElementsAre(0, 1, 0, 2, 1));
}

TEST(Partition, SilhouetteMatchesScikitLearn) {
  const auto points = torch::tensor({{0.0, 0.0}, {0.0, 1.0}, {4.0, 0.0}, {5.0, 1.0}, {9.0, 9.0}}, torch::kDouble);
  const std::vector<std::int64_t> labels = {0, 0, 1, 1, 2};
  EXPECT_NEAR(silhouette(points, labels), 0.5865415469710021, 1e-12);
  EXPECT_EQ(silhouette(points, std::vector<std::int64_t>(5, 3)), 0);
  EXPECT_ERROR(silhouette(points, std::vector<std::int64_t>(4, 3)), ErrorKind::kMismatch, "4 labels do not fit 5 points");
}

}  // namespace
}  // namespace quiver::cluster
