// Decisions once per prompt that are kept as rows of a table.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "quiver/recipes/adapted_model.h"
#include "quiver/routing/group_table.h"

namespace quiver::recipes {

/// Fills a table with a row per distinct prompt. Prompts with equal rows share a group, so that they may share prefixes.
/// Remembers the rows of earlier prompts, but forgets all of them before they exceed `most_prompts`.
class TableChooser : public PromptChooser {
 public:
  /// Rows [P, width] for prompts.
  using Rows = std::function<torch::Tensor(std::span<const Prompt>, Progress&)>;
  static constexpr std::size_t kMostPrompts = 4096;
  TableChooser(std::shared_ptr<routing::GroupTable> table, Rows rows, std::size_t most_prompts = kMostPrompts);

  /// A call that throws changes nothing. Throws kInternal for rows that are not [P, width].
  std::vector<std::int32_t> groups_of(std::span<const Prompt> prompts, Progress& progress) override;

 private:
  std::shared_ptr<routing::GroupTable> table_;
  Rows rows_;
  std::size_t most_prompts_;
  std::map<Prompt, std::int32_t> of_prompt_;
  std::map<std::vector<float>, std::int32_t> of_row_;
};

}  // namespace quiver::recipes
