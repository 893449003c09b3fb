#include "quiver/cluster/mbc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "quiver/base/error.h"
#include "quiver/cluster/kmeans.h"
#include "quiver/cluster/partition.h"
#include "quiver/io/json.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::cluster {
namespace {

using adapters::LoraAdapter;
using quiver::testing::seeded;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

LoraAdapter random_adapter(const std::string& name, std::uint64_t seed, std::int64_t rank = 2) {
  auto generator = seeded(seed);
  LoraAdapter adapter;
  adapter.name = name;
  for (const auto* path : {"layers.0.q_proj", "layers.0.v_proj", "layers.1.q_proj"}) {
    adapter.pairs.emplace(path, adapters::LoraPair(torch::randn({rank, 10}, generator), torch::randn({7, rank}, generator), 4));
  }
  return adapter;
}

/// `per_group` adapters around each of three random ones.
std::vector<LoraAdapter> planted(std::uint64_t seed, int per_group) {
  std::vector<LoraAdapter> adapters;
  for (int i = 0; i < 3 * per_group; ++i) {
    const auto center = random_adapter("", seed * 10 + static_cast<std::uint64_t>(i % 3));
    const auto noise = random_adapter("", 1000 + seed * 100 + static_cast<std::uint64_t>(i));
    LoraAdapter adapter;
    adapter.name = "task" + std::to_string(10 + i);
    for (const auto& [path, pair] : center.pairs) {
      const auto& other = noise.pairs.at(path);
      adapter.pairs.emplace(path, adapters::LoraPair(pair.lora_a() + 0.3 * other.lora_a(), pair.lora_b() + 0.3 * other.lora_b(), 4));
    }
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

using quiver::testing::message_of;

TEST(MagnitudeQuantile, InterpolatesBetweenNeighbours) {
  const auto x = torch::tensor({-4.0F, 1.0F, -2.0F, 8.0F});
  EXPECT_EQ(magnitude_quantile(x, 0), 1);
  EXPECT_EQ(magnitude_quantile(x, 0.5), 3);  // between 2 and 4
  EXPECT_NEAR(magnitude_quantile(x, 0.9), 4 + 0.7 * 4, 1e-12);
  EXPECT_EQ(magnitude_quantile(x, 1), 8);
  EXPECT_EQ(x[0].item<float>(), -4) << "the argument is not reordered";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { magnitude_quantile(x, 1.5); }), HasSubstr("sparsity 1.5"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { magnitude_quantile(x * std::nan(""), 0.5); }), HasSubstr("NaN"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { magnitude_quantile(torch::empty({0}), 0.5); }), HasSubstr("no entries"));
}

TEST(Sparsify, SetsToZeroWhatDoesNotExceedTheThreshold) {
  const auto x = torch::tensor({-4.0F, 1.0F, -2.0F, 8.0F, 3.0F});
  EXPECT_TRUE(sparsify(x, 0.5).equal(torch::tensor({-4.0F, 0.0F, 0.0F, 8.0F, 0.0F})));
}

TEST(GramOfFactors, IsThatOfTheSparsifiedVectors) {
  std::vector<LoraAdapter> adapters;
  std::vector<torch::Tensor> rows;
  for (std::uint64_t i = 0; i < 5; ++i) {
    adapters.push_back(random_adapter("t" + std::to_string(i), i));
    rows.push_back(sparsify(adapter_vector(adapters.back()), 0.6).to(torch::kDouble));
  }
  const auto x = torch::stack(rows);
  EXPECT_EQ(x.size(1), 3 * 2 * 17);
  EXPECT_TRUE(torch::allclose(gram_of_factors(adapters, 0.6), x.matmul(x.t()), 1e-12, 1e-12));
}

TEST(GramOfProducts, IsThatOfTheUpdatesAndDoesNotChangeWithTheGauge) {
  std::vector<LoraAdapter> adapters;
  std::vector<torch::Tensor> rows;
  for (std::uint64_t i = 0; i < 5; ++i) {
    adapters.push_back(random_adapter("t" + std::to_string(i), i, 1 + static_cast<std::int64_t>(i)));
    std::vector<torch::Tensor> parts;
    for (const auto& [path, pair] : adapters.back().pairs) parts.push_back(pair.to(torch::kCPU, torch::kDouble).delta().reshape(-1));
    rows.push_back(torch::cat(parts));
  }
  const auto x = torch::stack(rows);
  const auto gram = gram_of_products(adapters);
  EXPECT_TRUE(torch::allclose(gram, x.matmul(x.t()), 1e-10, 1e-10));

  auto& pair = adapters[2].pairs.at("layers.0.q_proj");
  auto generator = seeded(9);
  const auto m = torch::randn({3, 3}, generator) + 3 * torch::eye(3);
  pair = adapters::LoraPair(m.inverse().matmul(pair.lora_a()), pair.lora_b().matmul(m), 4);
  EXPECT_TRUE(torch::allclose(gram_of_products(adapters), gram, 1e-4, 1e-3));
}

TEST(Embed, HasTheCosinesOfTheTruncatedSvd) {
  auto generator = seeded(1);
  const auto x = torch::randn({9, 40}, generator, torch::kDouble);
  const auto [u, s, vh] = torch::linalg_svd(x, /*full_matrices=*/false);
  for (const std::int64_t components : {1, 4, 9, 64}) {
    SCOPED_TRACE(components);
    const auto kept = std::min<std::int64_t>(components, 9);
    const auto rows = (u * s).narrow(1, 0, kept);
    const auto unit = rows / rows.norm(2, 1, true);
    const auto embedding = embed(x.matmul(x.t()), components);
    ASSERT_EQ(embedding.size(1), kept);
    EXPECT_TRUE(torch::allclose(embedding.abs(), unit.abs(), 1e-6, 1e-8)) << components;
    EXPECT_TRUE(torch::allclose(cosine_similarity(embedding), unit.matmul(unit.t()), 1e-8, 1e-8));
  }
}

TEST(Embed, LeavesARowOutsideTheKeptSubspaceZero) {
  const auto gram = torch::diag(torch::tensor({4.0, 1.0}, torch::kDouble));
  const auto similarity = cosine_similarity(embed(gram, 1));
  EXPECT_TRUE(similarity.equal(torch::tensor({{1.0, 0.0}, {0.0, 0.0}}, torch::kDouble)));
}

TEST(Mbc, RecoversPlantedGroups) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    for (const auto similarity : {Similarity::kFactors, Similarity::kProducts}) {
      SCOPED_TRACE(static_cast<int>(similarity));
      const auto result = mbc(planted(seed, 4), {.num_clusters = 3, .similarity = similarity});
      EXPECT_THAT(result.labels, ElementsAre(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2));
      EXPECT_THAT(result.clusters()[1], ElementsAre("task11", "task14", "task17", "task20"));
      EXPECT_GT(result.silhouette, 0.6);
      EXPECT_TRUE(torch::allclose(result.similarity.diagonal(), torch::ones({12}, torch::kDouble)));
    }
  }
}

TEST(Mbc, DoesNotDependOnTheOrderOfTheAdapters) {
  auto adapters = planted(2, 5);
  const auto result = mbc(adapters, {.num_clusters = 5});
  std::reverse(adapters.begin(), adapters.end());
  const auto reversed = mbc(adapters, {.num_clusters = 5});
  EXPECT_EQ(reversed.names, result.names);
  EXPECT_EQ(reversed.labels, result.labels);
  EXPECT_EQ(reversed.inertia, result.inertia);
  EXPECT_TRUE(reversed.similarity.equal(result.similarity));
}

TEST(Mbc, OfOneAdapterIsOneCluster) {
  const auto result = mbc(std::vector<LoraAdapter>{random_adapter("alone", 1)}, {.num_clusters = 1});
  EXPECT_THAT(result.labels, ElementsAre(0));
  EXPECT_EQ(result.silhouette, 0);
}

TEST(Mbc, SaysWhatDoesNotFit) {
  std::vector<LoraAdapter> adapters = {random_adapter("a", 1), random_adapter("b", 2)};
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { mbc(adapters, {.num_clusters = 10}); }), HasSubstr("2 adapters cannot form 10 clusters"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { mbc(adapters, {.num_clusters = 2, .svd_components = 0}); }),
              HasSubstr("svd_components is 0"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { mbc(adapters, {.num_clusters = 2, .sparsity = 1}); }),
              HasSubstr("adapter 'a' has no direction"));
  adapters[1].name = "a";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { mbc(adapters, {.num_clusters = 2}); }), HasSubstr("two adapters are called 'a'"));

  adapters[1] = random_adapter("b", 2, 3);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { mbc(adapters, {.num_clusters = 2}); }),
              HasSubstr("adapters 'a' and 'b' differ at 'layers.0.q_proj': lora_a is Float [2, 10] and Float [3, 10]"));
  EXPECT_EQ(mbc(adapters, {.num_clusters = 2, .similarity = Similarity::kProducts}).labels.size(), 2);

  adapters[1] = random_adapter("b", 2);
  adapters[1].pairs.erase("layers.1.q_proj");
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { mbc(adapters, {.num_clusters = 2}); }),
              HasSubstr("adapter 'a' adapts 'layers.1.q_proj' and adapter 'b' does not"));
  std::swap(adapters[0].name, adapters[1].name);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { mbc(adapters, {.num_clusters = 2}); }),
              HasSubstr("adapter 'b' adapts 'layers.1.q_proj' and adapter 'a' does not"));

  adapters[1] = random_adapter("c", 2);
  adapters[0] = random_adapter("nan", 3);
  adapters[0].pairs.at("layers.1.q_proj").lora_a()[0][0] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { mbc(adapters, {.num_clusters = 2}); }),
              HasSubstr("adapter 'nan' holds NaN or infinite values at 'layers.1.q_proj'"));
}

TEST(SweepClusters, GivesForEachKWhatMbcGives) {
  const auto adapters = planted(3, 4);
  const auto sweep = sweep_clusters(adapters, {.num_clusters = 99, .sparsity = 0.3});
  ASSERT_EQ(sweep.entries.size(), 12);
  for (std::size_t i = 0; i < sweep.entries.size(); ++i) {
    SCOPED_TRACE(i);
    const auto& entry = sweep.entries[i];
    const auto k = static_cast<std::int64_t>(i) + 1;
    const auto alone = mbc(adapters, {.num_clusters = k, .sparsity = 0.3});
    EXPECT_EQ(entry.num_clusters, k);
    EXPECT_EQ(entry.labels, alone.labels);
    EXPECT_EQ(entry.inertia, alone.inertia);
    EXPECT_EQ(entry.silhouette.has_value(), k > 1);
    EXPECT_EQ(entry.silhouette.value_or(0), alone.silhouette);
    EXPECT_TRUE(sweep.similarity.equal(alone.similarity));
    if (i > 0) {
      EXPECT_LT(entry.inertia, sweep.entries[i - 1].inertia);
    }
  }
  EXPECT_EQ(sweep.names, mbc(adapters, {.num_clusters = 3}).names);
}

TEST(SweepClusters, SuggestsTheNumberOfPlantedGroups) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    EXPECT_EQ(sweep_clusters(planted(seed, 4), {}).suggested, 3);
    const std::int64_t without_it[] = {8, 5, 5};
    const auto sweep = sweep_clusters(planted(seed, 4), {}, without_it);
    ASSERT_EQ(sweep.entries.size(), 2) << "each once, ascending";
    EXPECT_EQ(sweep.entries[0].num_clusters, 5);
    EXPECT_EQ(sweep.suggested, *sweep.entries[0].silhouette >= *sweep.entries[1].silhouette ? 5 : 8);
  }
}

TEST(SweepClusters, TakesTheSmallestOfEqualSilhouettesAndTheSmallestKWhereNoneHasOne) {
  const std::vector<LoraAdapter> two = {random_adapter("a", 1), random_adapter("b", 2)};
  EXPECT_EQ(sweep_clusters(two, {}).suggested, 2) << "K = 1 has no silhouette, however poor that of K = 2 is";
  const std::int64_t one[] = {1};
  EXPECT_EQ(sweep_clusters(two, {}, one).suggested, 1);
  EXPECT_FALSE(sweep_clusters(two, {}, one).entries[0].silhouette.has_value());

  // Equal adapters: every K leaves silhouette 0.
  std::vector<LoraAdapter> equal;
  for (int i = 0; i < 5; ++i) {
    equal.push_back(random_adapter("t" + std::to_string(i), 1));
  }
  const auto sweep = sweep_clusters(equal, {});
  for (const auto& entry : sweep.entries) EXPECT_NEAR(entry.silhouette.value_or(0), 0, 1e-12) << entry.num_clusters;
  EXPECT_EQ(sweep.suggested, 2);
}

TEST(SweepClusters, RefusesAKThatDoesNotFit) {
  const std::vector<LoraAdapter> two = {random_adapter("a", 1), random_adapter("b", 2)};
  const std::int64_t three[] = {2, 3}, zero[] = {0};
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { sweep_clusters(two, {}, three); }), HasSubstr("2 adapters cannot form 3 clusters"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { sweep_clusters(two, {}, zero); }), HasSubstr("2 adapters cannot form 0 clusters"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { sweep_clusters({}, {}); }), HasSubstr("no adapters to compare"));
}

// ---- Golden values made by NumPy and scikit-learn (tests/golden/cluster/README.md)

const std::string kGolden = "tests/golden/cluster/";

std::vector<LoraAdapter> golden_adapters(const std::string& set) {
  std::map<std::string, std::map<std::string, torch::Tensor>> factors;  // adapter -> rest of the name -> tensor
  for (const auto& [name, tensor] : tensor::load_tensors(kGolden + set + ".adapters.safetensors")) {
    factors[name.substr(0, 2)][name.substr(3)] = tensor;
  }
  std::vector<LoraAdapter> adapters;
  for (const auto& [name, tensors] : factors) {
    LoraAdapter adapter;
    adapter.name = name;
    for (const auto& [key, a] : tensors) {
      if (!key.ends_with(".lora_a")) continue;
      const auto path = key.substr(0, key.size() - 7);
      adapter.pairs.emplace(path, adapters::LoraPair(a, tensors.at(path + ".lora_b"), 4));
    }
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

bool close(const torch::Tensor& actual, const torch::Tensor& expected) {
  return torch::allclose(actual.to(torch::kDouble), expected.to(torch::kDouble), 1e-6, 1e-6 * expected.abs().max().item<double>());
}

TEST(MbcGolden, EveryStageMatchesNumPy) {
  const auto report = io::read_json_file(kGolden + "cases.json");
  for (const std::string set : {"planted", "unstructured"}) {
    const auto adapters = golden_adapters(set);
    const auto stages = tensor::load_tensors(kGolden + set + ".stages.safetensors");
    for (const auto& [key, notes] : report.at(set).at("cases").items()) {
      const auto stage = [&, name = key](const std::string& what) { return stages.at(name + "." + what); };
      const auto sparsity = notes.at("sparsity").get<double>();
      for (std::size_t i = 0; i < adapters.size(); ++i) {
        const auto vector = adapter_vector(adapters[i]);
        const auto row = static_cast<std::int64_t>(i);
        const auto sparse = sparsify(vector, sparsity);
        ASSERT_NEAR(magnitude_quantile(vector, sparsity), stage("thresholds")[row].item<double>(), 1e-6) << set << key;
        ASSERT_EQ(sparse.count_nonzero().item<std::int64_t>(), stage("nonzeros")[row].item<std::int64_t>()) << set << key;
        ASSERT_NEAR(sparse.norm().item<double>(), stage("norms")[row].item<double>(), 1e-4) << set << key;
      }
      const auto gram = gram_of_factors(adapters, sparsity);
      const auto embedding = embed(gram, notes.at("components").get<std::int64_t>());
      const auto expected = stage("embedding");
      EXPECT_TRUE(close(gram, stage("gram"))) << set << key;
      EXPECT_TRUE(close(torch::linalg_eigvalsh(gram).flip(0).clamp_min(0).sqrt(), stage("singular_values"))) << set << key;
      EXPECT_TRUE(close(embedding.abs(), (expected / expected.norm(2, 1, true)).abs())) << set << key;
      EXPECT_TRUE(close(cosine_similarity(embedding), stage("similarity"))) << set << key;
    }
  }
}

TEST(MbcGolden, KMeansIsAsGoodAsScikitLearns) {
  const auto report = io::read_json_file(kGolden + "cases.json");
  for (const std::string set : {"planted", "unstructured"}) {
    const auto stages = tensor::load_tensors(kGolden + set + ".stages.safetensors");
    for (const auto& [key, notes] : report.at(set).at("cases").items()) {
      const auto best = notes.at("best_inertia_of_600_starts").get<double>();
      // The structureless set needs many starts for its optimum, and scikit-learn's ten did not find it either.
      const auto result = kmeans(stages.at(key + ".similarity"),
                                 {.num_clusters = notes.at("num_clusters").get<std::int64_t>(), .restarts = set == "planted" ? 10 : 200});
      EXPECT_LE(result.inertia, notes.at("inertia").get<double>() * (1 + 1e-6)) << set << key;
      EXPECT_NEAR(result.inertia, best, 0.02 * best) << set << key;
      if (set == "planted") {
        EXPECT_EQ(canonical_labels(result.labels), canonical_labels(notes.at("labels").get<std::vector<std::int64_t>>())) << key;
      }
    }
  }
}

TEST(MbcGolden, FindsThePlantedGroups) {
  const auto groups = io::read_json_file(kGolden + "cases.json").at("planted").at("planted_groups").get<std::vector<std::int64_t>>();
  const auto result = mbc(golden_adapters("planted"), {.num_clusters = 4, .svd_components = 16});
  EXPECT_EQ(result.labels, groups);
  EXPECT_NEAR(result.inertia, 3.215756244821369, 1e-6 * 3.2);
}

}  // namespace
}  // namespace quiver::cluster
