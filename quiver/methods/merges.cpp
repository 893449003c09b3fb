#include "quiver/methods/merges.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/merge/common.h"
#include "quiver/merge/compress.h"
#include "quiver/merge/dare.h"
#include "quiver/merge/knots.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/peft_merge.h"
#include "quiver/merge/ties.h"
#include "quiver/merge/wudi.h"
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using adapters::LoraAdapter;
using Adapters = std::span<const LoraAdapter>;

constexpr double kTrimDensity = 0.2;

/// The share of entries kept; `kPercent` of 100 unless told.
template <int kPercent>
struct Density {
  double density = kPercent / 100.0;
  static void describe(auto& schema) {
    schema.add(&Density::density, "density",
               {.help = "the share of entries kept", .range = {.least = 0, .most = 1, .excludes_least = true}});
  }
};
using Trims = Density<20>;  // the largest are kept
using Drops = Density<50>;  // at random

struct Draws {
  std::uint64_t seed = 0;
  static void describe(auto& schema) { schema.add(&Draws::seed, "seed", {.help = "draws what is dropped"}); }
};

struct Lambda {
  double lambda = 0.4;
  static void describe(auto& schema) { schema.add(&Lambda::lambda, "lambda", {.help = "the factor of the sum"}); }
};

std::int64_t widest_rank(Adapters adapters) {
  std::int64_t widest = 1;
  for (const auto& adapter : adapters) {
    for (const auto& [path, pair] : adapter.pairs) widest = std::max(widest, pair.rank());
  }
  return widest;
}

/// A row of these groups of options. `merge` is a function of the adapters; or of them, one weight for each (Weighted) and the options; or
/// of adapters and options.
template <typename... Groups>
Method row(const MethodText& text, const char* needs, const auto& merge) {
  return merge_method<OptionsOf<Groups..., MergeRank>>(text, needs, [merge](Adapters adapters, [[maybe_unused]] const auto& options) {
    if constexpr (requires { merge(adapters); }) {
      return merge(adapters);
    } else if constexpr (requires { options.weights; }) {
      return merge(adapters, weights_of(options.weights, adapters), options);
    } else {
      return merge(adapters, options);
    }
  });
}

template <typename... Groups>
Method by_peft(merge::PeftCombination combination, const MethodText& text) {
  return row<Weighted, Groups...>(text, kRanksAgree,
                                  [combination](Adapters adapters, const std::vector<double>& weights, const auto& options) {
                                    merge::PeftMergeOptions peft{.combination = combination, .density = kTrimDensity};
                                    if constexpr (requires { options.density; }) peft.density = options.density;
                                    if constexpr (requires { options.seed; }) peft.seed = options.seed;
                                    return merge::peft_merge(adapters, weights, peft);
                                  });
}

}  // namespace

std::vector<double> weights_of(const Weights& weights, Adapters adapters) {
  if (weights.by_name.empty()) return weights.by_position.empty() ? merge::equal_weights(adapters.size()) : weights.by_position;
  std::vector<double> numbers;
  std::vector<std::string> names;
  for (const auto& adapter : adapters) {
    names.push_back(adapter.name);
    const auto found = weights.by_name.find(adapter.name);
    if (found == weights.by_name.end()) {
      fail(ErrorKind::kUsage, "`weights` has no number for adapter '{}'; give one for each, 0 to leave it out", adapter.name);
    }
    numbers.push_back(found->second);
  }
  for (const auto& [name, weight] : weights.by_name) {
    if (std::ranges::find(names, name) == names.end())
      fail(ErrorKind::kUsage, "`weights` names '{}', which is none of the adapters{}", name, did_you_mean(name, names));
  }
  return numbers;
}

LoraAdapter finish_merge(const std::string& method, LoraAdapter adapter, const MergeRank& rank) {
  auto result = rank.merge_rank ? merge::compressed(adapter, *rank.merge_rank) : std::move(adapter);
  result.name = method;
  return result;
}

LoraAdapter merged(const Method& method, Adapters adapters, const OptionValues& values) {
  check_options(method.name, method.options, values);
  return std::get<MakeMerged>(method.make)(adapters, values);
}

std::vector<Method> merges() {
  using merge::PeftCombination;
  using Numbers = std::vector<double>;
  return {
      row<>({"mean", "mean", "factors averaged, each on its own", "Ostapenko et al. 2024, sec. 4"}, kFactorsAgree, merge::mean_of_factors),
      row<Weighted>({"weighted", "weighted", "factors summed with weights", "Huang et al. 2024 (LoraHub)"}, kFactorsAgree,
                    [](Adapters adapters, const Numbers& weights, const auto&) { return merge::weighted_factors(adapters, weights); }),
      row<>({"mean-products", "mean products", "updates averaged; ranks add up", "definition"}, kNothingMore, merge::mean_of_products),
      row<Weighted>({"cat", "cat", "updates summed with weights; ranks add up", "PEFT, cat"}, kNothingMore,
                    [](Adapters adapters, const Numbers& weights, const auto&) { return merge::weighted_products(adapters, weights); }),
      row<Weighted>({"svd", "SVD", "updates summed with weights, at the largest rank", "Eckart and Young 1936; PEFT, svd"}, kNothingMore,
                    [](Adapters adapters, const Numbers& weights, const auto& options) {
                      return merge::compressed_products(adapters, weights, options.merge_rank.value_or(widest_rank(adapters)));
                    }),
      merge_method<OptionsOf<MergeRank, Lambda>>(
          {"task-arithmetic", "task arithmetic", "updates summed, times lambda; ranks add up", "Ilharco et al. 2023"}, kNothingMore,
          [](Adapters adapters, const auto& options) { return merge::task_arithmetic(adapters, options.lambda); }),
      row<Trims>({"ties", "TIES", "largest entries of the factors, signs elected, those that agree averaged", "Yadav et al. 2023"},
                 kFactorsAgree, [](Adapters adapters, const auto& options) { return merge::ties(adapters, {.density = options.density}); }),
      row<Drops, Draws>(
          {"dare", "DARE", "entries of the factors dropped at random, the rest rescaled and averaged", "Yu et al. 2024"}, kFactorsAgree,
          [](Adapters adapters, const auto& options) { return merge::dare(adapters, {.density = options.density, .seed = options.seed}); }),
      row<Drops, Draws>({"dare-ties", "DARE TIES", "as dare, but signs elected, those that agree averaged", "Yu et al. 2024"},
                        kFactorsAgree,
                        [](Adapters adapters, const auto& options) {
                          return merge::dare_ties(adapters, {.density = options.density, .seed = options.seed});
                        }),
      row<Trims>({"knots-ties", "KnOTS TIES", "ties of the updates in a basis that they share", "Stoica et al. 2025"}, kNothingMore,
                 [](Adapters adapters, const auto& options) {
                   return merge::knots(adapters, {.merge = merge::KnotsMerge::kTies, .density = options.density});
                 }),
      row<Drops, Draws>({"knots-dare", "KnOTS DARE", "dare of the updates in a basis that they share", "Stoica et al. 2025"}, kNothingMore,
                        [](Adapters adapters, const auto& options) {
                          return merge::knots(adapters,
                                              {.merge = merge::KnotsMerge::kDare, .density = options.density, .seed = options.seed});
                        }),
      row<>({"wudi", "WuDi", "the update that disturbs each adapter least where it reads", "Cheng et al. 2025"}, kNothingMore,
            [](Adapters adapters) { return merge::wudi(adapters); }),
      by_peft(PeftCombination::kLinear,
              {"peft-linear", "PEFT linear", "factors summed with roots of weights and scalings", "PEFT, linear"}),
      by_peft<Trims>(PeftCombination::kTies,
                     {"peft-ties", "PEFT TIES", "as peft-linear, of each factor's largest entries that agree", "PEFT, ties"}),
      by_peft<Drops, Draws>(PeftCombination::kDareLinear,
                            {"peft-dare-linear", "PEFT DARE linear", "as peft-linear, entries dropped at random", "PEFT, dare_linear"}),
      by_peft<Drops, Draws>(PeftCombination::kDareTies,
                            {"peft-dare-ties", "PEFT DARE TIES", "as peft-dare-linear, of entries that agree", "PEFT, dare_ties"}),
      by_peft<Trims>(PeftCombination::kMagnitudePrune, {"peft-magnitude-prune", "PEFT magnitude prune",
                                                        "as peft-linear, of each factor's largest entries", "PEFT, magnitude_prune"}),
  };
}

}  // namespace quiver::methods
