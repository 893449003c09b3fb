#include "quiver/merge/ties.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quiver/merge/sparsify.h"
#include "quiver/merge/test_support.h"

namespace quiver::merge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// All factors as one vector, in path order, A before B.
std::vector<double> entries_of(const LoraAdapter& adapter) {
  std::vector<double> entries;
  for (const auto& [path, pair] : adapter.pairs) {
    for (const auto& factor : {pair.lora_a(), pair.lora_b()}) {
      const auto flat = factor.to(torch::kDouble).flatten();
      entries.insert(entries.end(), flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
    }
  }
  return entries;
}

/// The entries below the (1 - density)-quantile set to 0: sorted, interpolated.
std::vector<double> trimmed_by_sorting(std::vector<double> entries, double density) {
  std::vector<double> magnitudes;
  for (const double x : entries) magnitudes.push_back(std::abs(x));
  std::ranges::sort(magnitudes);
  const double position = (1 - density) * static_cast<double>(entries.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto above = std::min(below + 1, entries.size() - 1);
  const double threshold = magnitudes[below] + (magnitudes[above] - magnitudes[below]) * (position - static_cast<double>(below));
  for (double& x : entries) x = std::abs(x) < threshold ? 0 : x;
  return entries;
}

/// Elected and averaged, an entry at a time.
std::vector<double> merged_entries(const std::vector<std::vector<double>>& rows) {
  std::vector<double> merged;
  for (std::size_t j = 0; j < rows[0].size(); ++j) {
    double sum = 0, total = 0, voters = 0;
    for (const auto& row : rows) sum += row[j];
    for (const auto& row : rows) {
      if (row[j] * sum <= 0) continue;
      total += row[j];
      ++voters;
    }
    merged.push_back(voters > 0 ? total / voters : 0);
  }
  return merged;
}

TEST(DisjointMean, AveragesTheEntriesOfTheElectedSign) {
  const std::vector<torch::Tensor> parts = {torch::tensor({3.0, -1.0, 0.0, 2.0, 0.0}, torch::kDouble),
                                            torch::tensor({1.0, -2.0, 0.0, -2.0, -4.0}, torch::kDouble),
                                            torch::tensor({-2.0, 6.0, 0.0, 0.0, 0.0}, torch::kDouble)};
  const auto mean = disjoint_mean(3, [&](std::size_t i) { return parts[i]; });
  EXPECT_THAT(std::vector<double>(mean.data_ptr<double>(), mean.data_ptr<double>() + 5), ElementsAre(2, 6, 0, 0, -4));
}

TEST(Ties, EqualsItsDefinitionEntryByEntry) {
  const auto adapters = three_adapters();
  for (const double density : {0.1, 0.2, 0.5, 0.9, 1.0}) {
    SCOPED_TRACE(density);
    std::vector<std::vector<double>> rows;
    for (const auto& adapter : adapters) rows.push_back(trimmed_by_sorting(entries_of(adapter), density));
    const auto expected = merged_entries(rows);
    const auto merged = entries_of(ties(adapters, {.density = density}));
    ASSERT_EQ(merged.size(), expected.size());
    for (std::size_t j = 0; j < merged.size(); ++j) ASSERT_NEAR(merged[j], expected[j], 1e-7) << "density " << density << " entry " << j;
  }
}

TEST(Ties, OfOneAdapterAtDensityOneIsThatAdapter) {
  const auto a = random_adapter("a");
  const auto merged = ties(std::vector{a}, {.density = 1});
  EXPECT_TRUE(same_pairs(merged, a));
  EXPECT_EQ(merged.name, "ties");
  EXPECT_EQ(merged.base_model, "llama-tiny");
  EXPECT_TRUE(same_pairs(ties(std::vector{a, a, a}, {.density = 1}), a));
}

TEST(Ties, DoesNotDependOnTheOrderOfTheAdapters) {
  auto adapters = three_adapters();
  const auto merged = ties(adapters);
  std::ranges::reverse(adapters);
  EXPECT_TRUE(same_pairs(ties(adapters), merged));
}

TEST(Ties, TrimsByOneThresholdForTheWholeAdapter) {
  auto a = random_adapter("a");
  auto& large = a.pairs.at(kPath);  // 28 of 96 entries
  large = LoraPair(large.lora_a() * 1000, large.lora_b() * 1000, 4);
  const auto merged = ties(std::vector{a}, {.density = 0.2});
  for (const auto& [path, pair] : merged.pairs) {
    if (path == kPath) continue;
    EXPECT_EQ(pair.delta().abs().max().item<float>(), 0) << path;
  }
  const auto kept = (merged.pairs.at(kPath).lora_a() != 0).sum() + (merged.pairs.at(kPath).lora_b() != 0).sum();
  EXPECT_EQ(kept.item<std::int64_t>(), 20);  // the threshold is the entry at 0.8 * 95 of them sorted: 76 to 95 are kept
}

TEST(Ties, KeepsTheScalingAndTheDtype) {
  auto adapters = three_adapters();
  for (auto& adapter : adapters) {
    for (auto& [path, pair] : adapter.pairs) pair = LoraPair(pair.lora_a(), pair.lora_b(), 4, true).to(torch::kCPU, torch::kBFloat16);
  }
  const auto pair = ties(adapters).pairs.at(kPath);
  EXPECT_DOUBLE_EQ(pair.scaling(), 4 / std::sqrt(2));
  EXPECT_EQ(pair.lora_a().scalar_type(), torch::kBFloat16);
}

TEST(Ties, RefusesWhatItCannotMerge) {
  const auto a = random_adapter("a");
  for (const double density : {0.0, -0.5, 1.5, std::nan("")}) {
    SCOPED_TRACE(density);
    EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ties(std::vector{a}, {.density = density}); }), HasSubstr("must be in (0, 1]"));
  }
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ties(std::vector{a, random_adapter("b", 3, 6)}); }), HasSubstr("ranks are 2 and 3"));
  auto broken = random_adapter("broken");
  auto& pair = broken.pairs.at(kPath);
  pair = LoraPair(pair.lora_a(), pair.lora_b() / 0, 4);
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           ties(std::vector{a, broken});
                         }),
              AllOf(HasSubstr("adapter 'broken' holds NaN or infinite values"), HasSubstr(kPath)));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { ties({}); }), HasSubstr("no adapters to mix"));
}

}  // namespace
}  // namespace quiver::merge
