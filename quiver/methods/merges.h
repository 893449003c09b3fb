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
  static void describe(auto& schema) {
    schema.add(&MergeRank::merge_rank, "merge_rank",
               {.help = "compresses the result to this rank, by its singular values", .range = at_least(1), .unset = "the method's"});
  }
};

struct Weighted {
  Weights weights;
  static void describe(auto& schema) {
    schema.add(&Weighted::weights, "weights",
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

/// A row of the family kMerge. `Options` derives from MergeRank; `needs` is what the adapters must agree on. `merge` is a function of the
/// adapters and the options.
template <typename Options>
Method merge_method(const MethodText& text, const std::string& needs, const auto& merge) {
  const auto schema = schema_of<Options>();
  const auto make = [name = text.name, schema, merge](std::span<const adapters::LoraAdapter> adapters, const OptionValues& values) {
    const auto options = schema.read(values);
    return finish_merge(name, merge(adapters, options), options);
  };
  return {text, Family::kMerge, schema.options(), MakeMerged(make), needs};
}

/// All merges of folder merge/, in the order of the table.
std::vector<Method> merges();

}  // namespace quiver::methods
