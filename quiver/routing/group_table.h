// Numbers that depend on what a row is part of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/error.h"

namespace quiver::routing {

/// A row of `width` numbers for every group of rows (forest::Sequence::group): what routers that decide once per prompt
/// have decided, filled before the pass that reads it. Group 0, that of rows without a group, is all zeros.
/// Not thread-safe while it changes.
class GroupTable {
 public:
  explicit GroupTable(std::int64_t width) : width_(width), values_(static_cast<std::size_t>(width), 0.0F) {}

  /// A new group; returns its index. Throws kInternal for a row of another width.
  std::int32_t add(std::span<const float> row) {
    if (static_cast<std::int64_t>(row.size()) != width_)
      fail(ErrorKind::kInternal, "a row of {} in a table of width {}", row.size(), width_);
    values_.insert(values_.end(), row.begin(), row.end());
    return static_cast<std::int32_t>(num_groups() - 1);
  }
  /// Removes all groups but group 0; indices that were handed out name nothing any more.
  void clear() { values_.assign(static_cast<std::size_t>(width_), 0.0F); }
  std::int64_t width() const { return width_; }
  std::int64_t num_groups() const { return static_cast<std::int64_t>(values_.size()) / std::max<std::int64_t>(width_, 1); }
  std::span<const float> values() const { return values_; }  ///< [num_groups, width]
  /// Throws kInternal for a group that the table does not have.
  std::span<const float> row(std::int32_t group) const {
    if (group < 0 || group >= num_groups()) fail(ErrorKind::kInternal, "group {} of {}", group, num_groups());
    return std::span(values_).subspan(static_cast<std::size_t>(group * width_), static_cast<std::size_t>(width_));
  }

 private:
  std::int64_t width_;
  std::vector<float> values_;
};

}  // namespace quiver::routing
