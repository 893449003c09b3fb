#include "quiver/methods/merges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "quiver/merge/compress.h"
#include "quiver/merge/dare.h"
#include "quiver/merge/knots.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/peft_merge.h"
#include "quiver/merge/test_support.h"
#include "quiver/merge/ties.h"
#include "quiver/merge/wudi.h"
#include "quiver/methods/table.h"
#include "quiver/testing/draw.h"

namespace quiver::methods {
namespace {

using namespace merge;  // the functions that the rows call

using ::testing::HasSubstr;

adapters::LoraAdapter merge_by(std::string_view name, std::span<const adapters::LoraAdapter> adapters,
                               const OptionValues& values = OptionValues::object()) {
  return merged(reuse_method(name), adapters, values);
}

std::vector<std::string> merge_names() {
  std::vector<std::string> names;
  for (const auto& method : merges()) names.push_back(method.name);
  return names;
}

TEST(Merge, CallsTheFunctionOfItsName) {
  const auto adapters = three_adapters();
  const std::vector weights = {0.5, -1.0, 2.0};
  const std::vector third(3, 1.0 / 3);
  EXPECT_TRUE(same_pairs(merge_by("mean", adapters), mean_of_factors(adapters)));
  EXPECT_TRUE(same_pairs(merge_by("weighted", adapters, {{"weights", weights}}), weighted_factors(adapters, weights)));
  EXPECT_TRUE(same_pairs(merge_by("mean-products", adapters), mean_of_products(adapters)));
  EXPECT_TRUE(same_pairs(merge_by("cat", adapters, {{"weights", weights}}), weighted_products(adapters, weights)));
  EXPECT_TRUE(same_pairs(merge_by("cat", adapters), mean_of_products(adapters)));
  EXPECT_TRUE(same_pairs(merge_by("svd", adapters, {{"weights", weights}}), compressed_products(adapters, weights, 2)));
  EXPECT_TRUE(same_pairs(merge_by("task-arithmetic", adapters), task_arithmetic(adapters, 0.4)));
  EXPECT_TRUE(same_pairs(merge_by("task-arithmetic", adapters, {{"lambda", -1}}), task_arithmetic(adapters, -1)));
  EXPECT_TRUE(same_pairs(merge_by("ties", adapters), ties(adapters, {.density = 0.2})));
  EXPECT_TRUE(same_pairs(merge_by("ties", adapters, {{"density", 0.7}}), ties(adapters, {.density = 0.7})));
  EXPECT_TRUE(same_pairs(merge_by("dare", adapters, {{"seed", 3}}), dare(adapters, {.density = 0.5, .seed = 3})));
  EXPECT_TRUE(same_pairs(merge_by("dare-ties", adapters, {{"density", 0.3}}), dare_ties(adapters, {.density = 0.3})));
  EXPECT_TRUE(same_pairs(merge_by("knots-ties", adapters), knots(adapters)));
  EXPECT_TRUE(same_pairs(merge_by("knots-dare", adapters, {{"density", 0.3}, {"seed", 2}}),
                         knots(adapters, {.merge = KnotsMerge::kDare, .density = 0.3, .seed = 2})));
  EXPECT_TRUE(same_pairs(merge_by("wudi", adapters), wudi(adapters)));
  const auto by_peft = [&](PeftCombination combination, double density) {
    return peft_merge(adapters, third, {.combination = combination, .density = density});
  };
  EXPECT_TRUE(same_pairs(merge_by("peft-linear", adapters), by_peft(PeftCombination::kLinear, 1)));
  EXPECT_TRUE(same_pairs(merge_by("peft-ties", adapters), by_peft(PeftCombination::kTies, 0.2)));
  EXPECT_TRUE(same_pairs(merge_by("peft-magnitude-prune", adapters), by_peft(PeftCombination::kMagnitudePrune, 0.2)));
  EXPECT_TRUE(same_pairs(merge_by("peft-dare-linear", adapters), by_peft(PeftCombination::kDareLinear, 0.5)));
  EXPECT_TRUE(same_pairs(merge_by("peft-dare-ties", adapters), by_peft(PeftCombination::kDareTies, 0.5)));
}

TEST(Merge, NamesEveryMethodOnce) {
  const auto names = merge_names();
  EXPECT_EQ(names.size(), 17u);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
  for (const auto& method : merges()) {
    SCOPED_TRACE(method.name);
    for (const std::string& text : {method.what, method.source, method.needs}) EXPECT_FALSE(text.empty());
    EXPECT_EQ(merge_by(method.name, three_adapters()).name, method.name);
  }
}

TEST(Merge, CatIsMixingOfOutputs) {
  const auto adapters = three_adapters();
  const std::vector weights = {0.2, 0.5, 0.3};
  const auto cat = merge_by("cat", adapters, {{"weights", weights}});
  const auto x = testing::draw({5, 6}, 1);
  auto expected = torch::zeros({5, 8});
  for (std::size_t i = 0; i < 3; ++i) expected += weights[i] * adapters[i].pairs.at(kPath).apply(x);
  EXPECT_TRUE(torch::allclose(cat.pairs.at(kPath).apply(x), expected, 1e-5, 1e-6));
}

TEST(Merge, WithOneHotWeightsIsThatAdapter) {  // those of TIES are means over adapters that agree, whatever their weights
  const auto adapters = three_adapters();
  for (const std::string name : {"weighted", "cat", "svd", "peft-linear"}) {
    EXPECT_LT(update_difference(merge_by(name, adapters, {{"weights", {0, 1, 0}}}), adapters[1]), 1e-6) << name;
  }
  for (const std::string name : {"peft-dare-linear", "peft-magnitude-prune"}) {
    EXPECT_LT(update_difference(merge_by(name, adapters, {{"weights", {0, 1, 0}}, {"density", 1}}), adapters[1]), 1e-6) << name;
  }
}

TEST(Merge, CompressesToTheRankAskedFor) {
  const auto adapters = three_adapters();
  for (const auto& name : merge_names()) {
    SCOPED_TRACE(name);
    const auto merged = merge_by(name, adapters, {{"merge_rank", 1}});
    EXPECT_EQ(merged.pairs.at(kPath).rank(), 1) << name;
    EXPECT_EQ(merged.options.rank, 1) << name;
    EXPECT_EQ(merged.name, name);
    const auto whole = merge_by(name, adapters, {{"merge_rank", 6}});
    EXPECT_LT(update_difference(merged, compressed(whole, 1)), 1e-5) << name;
    if (name == "svd") continue;  // of rank 2 unless told
    EXPECT_LT(update_difference(whole, merge_by(name, adapters)), 1e-5) << name;
  }
}

/// What holds for every method.
class EveryMerge : public ::testing::TestWithParam<std::string> {
 protected:
  static const Method& method() { return reuse_method(GetParam()); }
};

TEST_P(EveryMerge, OfOneAdapterIsThatAdapter) {
  const auto a = random_adapter("a");
  OptionValues options = OptionValues::object();
  if (method().has("density")) options["density"] = 1;
  if (method().has("lambda")) options["lambda"] = 1;
  EXPECT_LT(update_difference(merge_by(GetParam(), std::vector{a}, options), a), 1e-6);
}

TEST_P(EveryMerge, DoesNotDependOnTheOrderOfTheAdapters) {
  auto adapters = three_adapters();
  const auto merged = merge_by(GetParam(), adapters);
  std::ranges::reverse(adapters);
  EXPECT_LT(update_difference(merge_by(GetParam(), adapters), merged), 1e-5);
}

TEST_P(EveryMerge, RefusesAdaptersThatCannotBeMerged) {
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { merge_by(GetParam(), {}); }), HasSubstr("no adapters to mix"));
  auto adapters = three_adapters();
  adapters[1].pairs.at(kPath) = LoraPair(torch::full({2, 6}, std::nan("")), torch::ones({8, 2}), 4);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { merge_by(GetParam(), adapters); }),
              HasSubstr("adapter 'b' holds NaN or infinite values"));
  adapters[1].pairs.erase(kPath);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { merge_by(GetParam(), adapters); }), HasSubstr("'b' has no LoRA on"));
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [] {
                           merge_by(GetParam(), three_adapters(), {{"merge_rank", 0}});
                         }),
              HasSubstr("`merge_rank`: must be at least 1, not 0"));
}

TEST_P(EveryMerge, TakesUnequalRanksUnlessItSaysSo) {
  const std::vector adapters = {random_adapter("a"), random_adapter("b", 3, 6)};
  if (method().needs == kNothingMore) {
    EXPECT_EQ(merge_by(GetParam(), adapters).pairs.size(), 4u);
  } else {
    EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { merge_by(GetParam(), adapters); }), HasSubstr("ranks are 2 and 3"));
  }
}

TEST_P(EveryMerge, RefusesOptionsThatItDoesNotTake) {
  const auto adapters = three_adapters();
  const auto refused = [&](const OptionValues& options, const char* name, const char* part) {
    EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { merge_by(GetParam(), adapters, options); }),
                HasSubstr(method().has(name) ? part : format("has no option '{}'", name)));
  };
  refused({{"weights", {1, 2}}}, "weights", "2 weights for 3 adapters");
  refused({{"lambda", std::nan("")}}, "lambda", "`lambda`: must be a finite number, not nan");
  refused({{"density", 1.5}}, "density", "`density`: must be above 0 and at most 1, not 1.5");
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMerge, ::testing::ValuesIn(merge_names()), [](const auto& test) {
  std::string name;
  for (const char c : test.param) name += c == '-' ? '_' : c;
  return name;
});

TEST(Merge, SuggestsTheNearestName) {
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { merge_by("tise", three_adapters()); }),
              HasSubstr("no method 'tise' (did you mean 'ties'?)"));
}

}  // namespace
}  // namespace quiver::methods
