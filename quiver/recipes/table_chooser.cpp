#include "quiver/recipes/table_chooser.h"

#include <torch/utils.h>

#include <set>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::recipes {

TableChooser::TableChooser(std::shared_ptr<routing::GroupTable> table, std::vector<std::string> adapters, Rows rows)
    : table_(std::move(table)), adapters_(std::move(adapters)), rows_(std::move(rows)) {}

std::vector<std::int32_t> TableChooser::groups_of(std::span<const Prompt> prompts, Progress& progress) {
  std::vector<Prompt> fresh;
  std::set<Prompt> seen;  // prompts enter the table when their rows are known: a pass that fails leaves nothing behind
  for (const auto& prompt : prompts) {
    if (!of_prompt_.contains(prompt) && seen.insert(prompt).second) fresh.push_back(prompt);
  }
  if (!fresh.empty()) {
    const auto rows = rows_(fresh, progress).to(torch::kCPU, torch::kFloat).contiguous();
    check(rows);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const auto* row = rows.const_data_ptr<float>() + static_cast<std::int64_t>(i) * rows.size(1);
      std::vector<float> values(row, row + rows.size(1));
      const auto [found, is_new] = of_row_.emplace(values, 0);
      if (is_new) found->second = table_->add(values);
      of_prompt_[fresh[i]] = found->second;
    }
  }
  std::vector<std::int32_t> groups;
  for (const auto& prompt : prompts) groups.push_back(of_prompt_.at(prompt));
  return groups;
}

void TableChooser::forget() {
  table_->clear();
  of_prompt_.clear();
  of_row_.clear();
}

void TableChooser::check(const torch::Tensor& rows) const {
  const auto wrong = rows.isfinite().logical_not().any(0).nonzero();  // columns
  if (wrong.size(0) == 0) return;
  const auto column = static_cast<std::size_t>(wrong[0].item<std::int64_t>());
  fail(ErrorKind::kMismatch, "the score of {} for a prompt is not finite: the base overflows, or what adapters are chosen by",
       column < adapters_.size() ? format("adapter '{}'", adapters_[column]) : std::string("all adapters"));
}

}  // namespace quiver::recipes
