#include "quiver/methods/table_chooser.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::methods {

TableChooser::TableChooser(std::shared_ptr<routing::GroupTable> table, std::vector<std::string> adapters, Rows rows,
                           std::size_t most_prompts)
    : table_(std::move(table)), adapters_(std::move(adapters)), rows_(std::move(rows)), most_prompts_(most_prompts) {}

std::vector<routing::GroupLease> TableChooser::groups_of(std::span<const Prompt> prompts, Progress& progress) {
  Groups groups;
  for (const auto& prompt : prompts) groups.try_emplace(prompt);
  const auto fresh = look_up(groups);
  if (!fresh.empty()) hold_rows(fresh, groups, progress);  // long: without the lock
  remember(groups);
  std::vector<routing::GroupLease> leases;
  for (const auto& prompt : prompts) leases.push_back(groups.at(prompt));
  return leases;
}

std::vector<float> TableChooser::row_of(const routing::GroupLease& group) const {
  const auto rows = table_->rows();
  const auto row = rows.at(*group);
  return {row.begin(), row.end()};
}

void TableChooser::forget() {
  const std::lock_guard lock(mutex_);
  known_.clear();
  by_use_.clear();
}

/// Fills in the groups that are known; returns the prompts of the others.
std::vector<Prompt> TableChooser::look_up(Groups& groups) {
  std::vector<Prompt> fresh;
  const std::lock_guard lock(mutex_);
  for (auto& [prompt, group] : groups) {
    const auto found = known_.find(prompt);
    if (found == known_.end())
      fresh.push_back(prompt);
    else
      group = found->second.group;
  }
  return fresh;
}

void TableChooser::hold_rows(std::span<const Prompt> fresh, Groups& groups, Progress& progress) const {
  const auto rows = rows_(fresh, progress).to(torch::kCPU, torch::kFloat).contiguous();
  const auto width = table_->width();
  const auto* values = tensor::raw_data<float>(rows, "rows of prompts", {static_cast<std::int64_t>(fresh.size()), width});
  check(rows);
  for (const auto& prompt : fresh) {
    groups.at(prompt) = table_->hold({values, values + width});
    values += width;
  }
}

void TableChooser::remember(const Groups& groups) {
  const std::lock_guard lock(mutex_);
  for (const auto& [prompt, group] : groups) {
    const auto [known, is_new] = known_.try_emplace(prompt, Known{group, by_use_.end()});
    if (is_new)
      known->second.use = by_use_.insert(by_use_.end(), &known->first);
    else
      by_use_.splice(by_use_.end(), by_use_, known->second.use);
  }
  while (known_.size() > most_prompts_) {
    known_.erase(known_.find(*by_use_.front()));
    by_use_.pop_front();
  }
}

void TableChooser::check(const torch::Tensor& rows) const {
  const auto wrong = rows.isfinite().logical_not().any(0).nonzero();  // columns
  if (wrong.size(0) == 0) return;
  const auto column = static_cast<std::size_t>(wrong[0].item<std::int64_t>());
  fail(ErrorKind::kMismatch, "the score of {} for a prompt is not finite: the base overflows, or what adapters are chosen by",
       column < adapters_.size() ? format("adapter '{}'", adapters_[column]) : std::string("all adapters"));
}

}  // namespace quiver::methods
