#include "quiver/recipes/table_chooser.h"

#include <torch/utils.h>

#include <set>
#include <utility>

#include "quiver/tensor/raw_data.h"

namespace quiver::recipes {

TableChooser::TableChooser(std::shared_ptr<routing::GroupTable> table, Rows rows, std::size_t most_prompts)
    : table_(std::move(table)), rows_(std::move(rows)), most_prompts_(most_prompts) {}

std::vector<std::int32_t> TableChooser::groups_of(std::span<const Prompt> prompts, Progress& progress) {
  const std::set<Prompt> distinct(prompts.begin(), prompts.end());
  std::vector<Prompt> fresh;
  for (const auto& prompt : distinct) {
    if (!of_prompt_.contains(prompt)) fresh.push_back(prompt);
  }
  const bool starts_anew = !fresh.empty() && of_prompt_.size() + fresh.size() > most_prompts_;
  if (starts_anew) fresh.assign(distinct.begin(), distinct.end());
  if (!fresh.empty()) {
    const auto rows = rows_(fresh, progress).to(torch::kCPU, torch::kFloat).contiguous();
    const auto* values = tensor::raw_data<float>(rows, "rows of prompts", {static_cast<std::int64_t>(fresh.size()), table_->width()});
    if (starts_anew) {
      table_->clear();
      of_prompt_.clear();
      of_row_.clear();
    }
    for (std::size_t i = 0; i < fresh.size(); ++i, values += table_->width()) {
      const std::vector<float> row(values, values + table_->width());
      const auto [found, is_new] = of_row_.emplace(row, 0);
      if (is_new) found->second = table_->add(row);
      of_prompt_[fresh[i]] = found->second;
    }
  }
  std::vector<std::int32_t> groups;
  for (const auto& prompt : prompts) groups.push_back(of_prompt_.at(prompt));
  return groups;
}

}  // namespace quiver::recipes
