#include "quiver/routing/group_table.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::routing {

struct GroupTable::State {
  std::int64_t width = 0;
  std::mutex mutex;
  /// Readers hold it while another thread holds a new group: it only grows, by a copy, and only rows of free groups are written.
  std::shared_ptr<std::vector<float>> values;
  std::map<std::vector<float>, std::weak_ptr<const std::int32_t>> of_row;
  std::set<std::int32_t> free;  // groups below the table's size
  std::int64_t num_held = 0;

  std::int32_t take(std::span<const float> row) {
    if (free.empty()) grow();
    const auto group = *free.begin();
    std::ranges::copy(row, values->begin() + group * width);
    free.erase(free.begin());
    ++num_held;
    return group;
  }

  void grow() {
    auto larger = std::make_shared<std::vector<float>>(2 * values->size(), 0.0F);
    std::ranges::copy(*values, larger->begin());
    const auto size = static_cast<std::int32_t>(static_cast<std::int64_t>(values->size()) / width);
    std::set<std::int32_t> more;
    for (auto group = size; group < 2 * size; ++group) more.insert(group);
    free.merge(more);
    values = std::move(larger);
  }
};

/// What the leases of one group own together.
struct GroupTable::Held {
  std::shared_ptr<State> state;
  std::vector<float> row;
  std::int32_t group = -1;  // none yet

  ~Held() {
    if (group < 0) return;
    const std::lock_guard lock(state->mutex);
    // Since the last lease went, an equal row may have been given a group of its own.
    if (const auto found = state->of_row.find(row); found != state->of_row.end() && found->second.expired()) state->of_row.erase(found);
    state->free.insert(group);
    --state->num_held;
  }
};

std::span<const float> GroupTable::Rows::at(std::int32_t group) const {
  if (group < 0 || group >= size()) fail(ErrorKind::kInternal, "group {} of {}", group, size());
  return std::span(*values_).subspan(static_cast<std::size_t>(group * width_), static_cast<std::size_t>(width_));
}

GroupTable::GroupTable(std::int64_t width) : state_(std::make_shared<State>()) {
  if (width < 1) fail(ErrorKind::kInternal, "a table of width {}", width);
  state_->width = width;
  state_->values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(width), 0.0F);
}

GroupLease GroupTable::hold(std::span<const float> row) {
  if (static_cast<std::int64_t>(row.size()) != width()) {
    fail(ErrorKind::kInternal, "a row of {} in a table of width {}", row.size(), width());
  }
  auto held = std::make_shared<Held>(Held{state_, {row.begin(), row.end()}});
  const std::lock_guard lock(state_->mutex);
  auto& known = state_->of_row[held->row];
  if (auto lease = known.lock()) return lease;
  held->group = state_->take(row);
  GroupLease lease(held, &held->group);
  known = lease;
  return lease;
}

std::int64_t GroupTable::width() const { return state_->width; }

std::int64_t GroupTable::num_groups() const {
  const std::lock_guard lock(state_->mutex);
  return state_->num_held + 1;
}

GroupTable::Rows GroupTable::rows() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->values, state_->width};
}

}  // namespace quiver::routing
