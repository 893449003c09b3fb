// Static merges by name.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/merge/peft_merge.h"

namespace quiver::merge {

/// What the merges of the registry are made from; each reads the part it needs, and refuses a part that is set but means nothing to it.
struct MergeOptions {
  std::vector<double> weights;                        ///< one per adapter; empty is 1 / n each
  std::optional<double> lambda;                       ///< the factor of task arithmetic; 0.4 unless set
  std::optional<double> density;                      ///< the share of entries kept, in (0, 1]; 0.2 unless set, 0.5 where dropped at random
  std::optional<std::int64_t> rank;                   ///< the result's rank at most, by compressed; unless set as the method gives it
  std::uint64_t seed = 0;                             ///< of random draws
  MajoritySign majority_sign = MajoritySign::kTotal;  ///< how PEFT's ties elect signs
};

/// One way to make one adapter of several.
struct MergeMethod {
  const char* name;
  const char* what;   ///< one line
  const char* paper;  ///< where it comes from
  const char* needs;  ///< what the adapters must agree on, besides paths, d_in, d_out and base
  bool takes_weights = false;
  bool takes_lambda = false;
  bool takes_density = false;
};

/// All of them, in the order of the table.
std::vector<MergeMethod> merge_methods();
std::vector<std::string> merge_names();

/// The adapters merged by the method `name`, which becomes the result's name.
/// Throws kUsage for a name that is not in merge_names(), for an option that the method does not take, and for a rank below 1;
/// else as the method's function.
adapters::LoraAdapter merge(std::string_view name, std::span<const adapters::LoraAdapter> adapters, const MergeOptions& options = {});

}  // namespace quiver::merge
