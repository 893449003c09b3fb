#include "quiver/merge/registry.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/merge/common.h"
#include "quiver/merge/compress.h"
#include "quiver/merge/dare.h"
#include "quiver/merge/knots.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/ties.h"
#include "quiver/merge/wudi.h"

namespace quiver::merge {
namespace {

using Adapters = std::span<const adapters::LoraAdapter>;

constexpr double kTrimDensity = 0.2;
constexpr double kDropDensity = 0.5;

std::vector<double> weights_of(Adapters adapters, const MergeOptions& options) {
  return options.weights.empty() ? equal_weights(adapters.size()) : options.weights;
}

std::int64_t widest_rank(Adapters adapters) {
  std::int64_t widest = 1;
  for (const auto& adapter : adapters) {
    for (const auto& [path, pair] : adapter.pairs) widest = std::max(widest, pair.rank());
  }
  return widest;
}

template <PeftCombination combination>
adapters::LoraAdapter by_peft(Adapters adapters, const MergeOptions& options) {
  constexpr bool drops = combination == PeftCombination::kDareLinear || combination == PeftCombination::kDareTies;
  return peft_merge(adapters, weights_of(adapters, options),
                    {.combination = combination,
                     .density = options.density.value_or(drops ? kDropDensity : kTrimDensity),
                     .majority_sign = options.majority_sign,
                     .seed = options.seed});
}

template <KnotsMerge way>
adapters::LoraAdapter by_knots(Adapters adapters, const MergeOptions& options) {
  return knots(adapters, {.merge = way, .density = options.density, .seed = options.seed});
}

DareOptions dare_options(const MergeOptions& options) { return {.density = options.density.value_or(kDropDensity), .seed = options.seed}; }

struct Entry {
  MergeMethod method;
  adapters::LoraAdapter (*merge)(Adapters adapters, const MergeOptions& options);
};

constexpr const char* kFactorsAgree = "equal ranks and scalings, one starting lora_a";
constexpr const char* kRanksAgree = "equal ranks, one starting lora_a";
constexpr const char* kNothing = "nothing more";

constexpr Entry kEntries[] = {
    {{.name = "mean", .what = "factors averaged, each on its own", .paper = "Ostapenko et al. 2024, sec. 4", .needs = kFactorsAgree},
     [](Adapters adapters, const MergeOptions&) { return mean_of_factors(adapters); }},
    {{.name = "weighted",
      .what = "factors summed with weights",
      .paper = "Huang et al. 2024 (LoraHub)",
      .needs = kFactorsAgree,
      .takes_weights = true},
     [](Adapters adapters, const MergeOptions& options) { return weighted_factors(adapters, weights_of(adapters, options)); }},
    {{.name = "mean-products", .what = "updates averaged; ranks add up", .paper = "definition", .needs = kNothing},
     [](Adapters adapters, const MergeOptions&) { return mean_of_products(adapters); }},
    {{.name = "cat", .what = "updates summed with weights; ranks add up", .paper = "PEFT, cat", .needs = kNothing, .takes_weights = true},
     [](Adapters adapters, const MergeOptions& options) { return weighted_products(adapters, weights_of(adapters, options)); }},
    {{.name = "svd",
      .what = "updates summed with weights, at the largest rank",
      .paper = "Eckart and Young 1936; PEFT, svd",
      .needs = kNothing,
      .takes_weights = true},
     [](Adapters adapters, const MergeOptions& options) {
       return compressed_products(adapters, weights_of(adapters, options), options.rank.value_or(widest_rank(adapters)));
     }},
    {{.name = "task-arithmetic",
      .what = "updates summed, times lambda; ranks add up",
      .paper = "Ilharco et al. 2023",
      .needs = kNothing,
      .takes_lambda = true},
     [](Adapters adapters, const MergeOptions& options) {
       return options.lambda ? task_arithmetic(adapters, *options.lambda) : task_arithmetic(adapters);
     }},
    {{.name = "ties",
      .what = "largest entries of the factors, signs elected, those that agree averaged",
      .paper = "Yadav et al. 2023",
      .needs = kFactorsAgree,
      .takes_density = true},
     [](Adapters adapters, const MergeOptions& options) { return ties(adapters, {.density = options.density.value_or(kTrimDensity)}); }},
    {{.name = "dare",
      .what = "entries of the factors dropped at random, the rest rescaled and averaged",
      .paper = "Yu et al. 2024",
      .needs = kFactorsAgree,
      .takes_density = true},
     [](Adapters adapters, const MergeOptions& options) { return dare(adapters, dare_options(options)); }},
    {{.name = "dare-ties",
      .what = "as dare, but signs elected, those that agree averaged",
      .paper = "Yu et al. 2024",
      .needs = kFactorsAgree,
      .takes_density = true},
     [](Adapters adapters, const MergeOptions& options) { return dare_ties(adapters, dare_options(options)); }},
    {{.name = "knots-ties",
      .what = "ties of the updates in a basis that they share",
      .paper = "Stoica et al. 2025",
      .needs = kNothing,
      .takes_density = true},
     by_knots<KnotsMerge::kTies>},
    {{.name = "knots-dare",
      .what = "dare of the updates in a basis that they share",
      .paper = "Stoica et al. 2025",
      .needs = kNothing,
      .takes_density = true},
     by_knots<KnotsMerge::kDare>},
    {{.name = "wudi",
      .what = "the update that disturbs each adapter least where it reads",
      .paper = "Cheng et al. 2025",
      .needs = kNothing},
     [](Adapters adapters, const MergeOptions&) { return wudi(adapters); }},
    {{.name = "peft-linear",
      .what = "factors summed with roots of weights and scalings",
      .paper = "PEFT, linear",
      .needs = kRanksAgree,
      .takes_weights = true},
     by_peft<PeftCombination::kLinear>},
    {{.name = "peft-ties",
      .what = "as peft-linear, of each factor's largest entries that agree",
      .paper = "PEFT, ties",
      .needs = kRanksAgree,
      .takes_weights = true,
      .takes_density = true},
     by_peft<PeftCombination::kTies>},
    {{.name = "peft-dare-linear",
      .what = "as peft-linear, entries dropped at random",
      .paper = "PEFT, dare_linear",
      .needs = kRanksAgree,
      .takes_weights = true,
      .takes_density = true},
     by_peft<PeftCombination::kDareLinear>},
    {{.name = "peft-dare-ties",
      .what = "as peft-dare-linear, of entries that agree",
      .paper = "PEFT, dare_ties",
      .needs = kRanksAgree,
      .takes_weights = true,
      .takes_density = true},
     by_peft<PeftCombination::kDareTies>},
    {{.name = "peft-magnitude-prune",
      .what = "as peft-linear, of each factor's largest entries",
      .paper = "PEFT, magnitude_prune",
      .needs = kRanksAgree,
      .takes_weights = true,
      .takes_density = true},
     by_peft<PeftCombination::kMagnitudePrune>},
};

void check(const MergeMethod& method, const MergeOptions& options) {
  const auto refuse = [&](bool is_set, bool is_taken, const char* option) {
    if (is_set && !is_taken) fail(ErrorKind::kUsage, "the merge '{}' takes no {}: leave it out", method.name, option);
  };
  refuse(!options.weights.empty(), method.takes_weights, "weights");
  refuse(options.lambda.has_value(), method.takes_lambda, "lambda");
  refuse(options.density.has_value(), method.takes_density, "density");
  if (options.rank && *options.rank < 1) {
    fail(ErrorKind::kUsage, "cannot merge into an adapter of rank {}: the rank must be at least 1", *options.rank);
  }
}

}  // namespace

std::vector<MergeMethod> merge_methods() {
  std::vector<MergeMethod> methods;
  for (const auto& entry : kEntries) methods.push_back(entry.method);
  return methods;
}

std::vector<std::string> merge_names() {
  std::vector<std::string> names;
  for (const auto& entry : kEntries) names.emplace_back(entry.method.name);
  return names;
}

adapters::LoraAdapter merge(std::string_view name, std::span<const adapters::LoraAdapter> adapters, const MergeOptions& options) {
  for (const auto& [method, merge_by] : kEntries) {
    if (name != method.name) continue;
    check(method, options);
    auto result = merge_by(adapters, options);
    if (options.rank) result = compressed(result, *options.rank);
    result.name = method.name;
    return result;
  }
  std::string known;
  for (const auto& other : merge_names()) known += (known.empty() ? "'" : ", '") + other + "'";
  fail(ErrorKind::kUsage, "no merge is called '{}'{}: there are {}", name, did_you_mean(name, merge_names()), known);
}

}  // namespace quiver::merge
