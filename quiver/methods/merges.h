// Static merges as methods.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quiver/methods/method.h"

namespace quiver::methods {

/// The option that all merges have. The options of a merge derive from it.
struct MergeRank {
  std::optional<std::int64_t> merge_rank;
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add(&Options::merge_rank, "merge_rank",
               {.help = "compresses the result to this rank, by its singular values", .range = at_least(1), .unset = "the method's"});
  }
};

struct Weighted {
  Weights weights;
  template <typename Options>
  static void describe(Schema<Options>& schema) {
    schema.add(&Options::weights, "weights",
               {.help = "a weight for each adapter: in the order of their names, or by name, beta=1,alpha=0", .unset = "equal"});
  }
};

/// One number for each adapter: equal weights where none are given. Throws kUsage unless names are those of the adapters, each once.
std::vector<double> weights_of(const Weights& weights, std::span<const adapters::LoraAdapter> adapters);

/// The adapters by a row of the family kMerge over members. `values` are checked. Throws as check_options and the merge.
adapters::LoraAdapter merged(const Method& method, std::span<const adapters::LoraAdapter> adapters, const OptionValues& values);

/// What compresses a merged adapter (merge::compressed), and gives it the method's name.
adapters::LoraAdapter finish_merge(const std::string& method, adapters::LoraAdapter adapter, const MergeRank& rank);

inline constexpr const char* kFactorsAgree = "equal ranks and scalings, one starting lora_a";
inline constexpr const char* kRanksAgree = "equal ranks, one starting lora_a";
inline constexpr const char* kNothingMore = "nothing more";

/// A row of the family kMerge. `Options` derives from MergeRank; `needs` is what the adapters must agree on.
template <typename Options, typename Merge>
Method merge_method(const MethodText& text, const std::string& needs, const Schema<Options>& schema, Merge merge) {
  const auto make = [name = text.name, schema, merge](std::span<const adapters::LoraAdapter> adapters, const OptionValues& values) {
    const auto options = schema.read(values);
    return finish_merge(name, merge(adapters, options), options);
  };
  return {.name = text.name,
          .label = text.label,
          .family = Family::kMerge,
          .what = text.what,
          .source = text.source,
          .options = schema.options(),
          .make = MakeMerged(make),
          .needs = needs};
}

/// All merges of folder merge/, in the order of the table.
std::vector<Method> merges();

}  // namespace quiver::methods
