// Decisions once per prompt that are kept as rows of a table.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quiver/methods/observe.h"
#include "quiver/methods/prompt_chooser.h"
#include "quiver/routing/group_table.h"

namespace quiver::methods {

/// Fills a table with a row per distinct prompt. Prompts with equal rows share a group, so that they may share prefixes.
/// Remembers the rows of earlier prompts, but forgets all of them before they exceed `most_prompts`.
class TableChooser : public PromptChooser {
 public:
  /// Rows [P, width] for prompts.
  using Rows = std::function<torch::Tensor(std::span<const Prompt>, Progress&)>;
  static constexpr std::size_t kMostPrompts = 4096;
  /// `adapters` are the names of the table's columns, where these are adapters.
  TableChooser(std::shared_ptr<routing::GroupTable> table, std::vector<std::string> adapters, Rows rows,
               std::size_t most_prompts = kMostPrompts);

  /// A call that throws changes nothing. Throws kInternal for rows that are not [P, width], and kMismatch, naming the adapter, for a row
  /// that is not finite.
  std::vector<std::int32_t> groups_of(std::span<const Prompt> prompts, Progress& progress) override;
  void forget() override;

 private:
  void check(const torch::Tensor& rows) const;

  std::shared_ptr<routing::GroupTable> table_;
  std::vector<std::string> adapters_;
  Rows rows_;
  std::size_t most_prompts_;
  std::map<Prompt, std::int32_t> of_prompt_;
  std::map<std::vector<float>, std::int32_t> of_row_;
};

}  // namespace quiver::methods
