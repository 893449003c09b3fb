#include "quiver/methods/table_chooser.h"

#include <torch/utils.h>

#include <set>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::methods {

TableChooser::TableChooser(std::shared_ptr<routing::GroupTable> table, std::vector<std::string> adapters, Rows rows,
                           std::size_t most_prompts)
    : table_(std::move(table)), adapters_(std::move(adapters)), rows_(std::move(rows)), most_prompts_(most_prompts) {}

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
    check(rows);
    if (starts_anew) forget();
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

}  // namespace quiver::methods
