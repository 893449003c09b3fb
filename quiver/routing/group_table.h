// Numbers that depend on what a row is part of.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace quiver::routing {

/// Holds a group of a GroupTable: its index. The row stays as it is for as long as a copy lives.
using GroupLease = std::shared_ptr<const std::int32_t>;

/// A row of `width` numbers for every group of rows (forest::Sequence::group): what routers that decide once per prompt
/// have decided, filled before the pass that reads it. Group 0, that of rows without a group, is all zeros. Thread-safe.
class GroupTable {
 public:
  /// The rows at one time. Those of groups that are held stay as they are, whatever is held later.
  class Rows {
   public:
    Rows() = default;                                                                     ///< of no table
    const float* data() const { return values_ == nullptr ? nullptr : values_->data(); }  ///< [size, width]; null: no table
    std::int64_t size() const { return values_ == nullptr ? 0 : static_cast<std::int64_t>(values_->size()) / width_; }
    /// Throws kInternal for a group beyond the table.
    std::span<const float> at(std::int32_t group) const;

   private:
    friend class GroupTable;
    Rows(std::shared_ptr<const std::vector<float>> values, std::int64_t width) : values_(std::move(values)), width_(width) {}
    std::shared_ptr<const std::vector<float>> values_;
    std::int64_t width_ = 1;
  };

  /// Throws kInternal for a width below 1.
  explicit GroupTable(std::int64_t width);

  /// The group of a row: that of an equal row that is held, else the first index that is free. Throws kInternal for a row of another width.
  GroupLease hold(std::span<const float> row);
  std::int64_t width() const;
  /// Groups that are held, and group 0.
  std::int64_t num_groups() const;
  Rows rows() const;

 private:
  struct State;
  struct Held;
  std::shared_ptr<State> state_;  // leases may outlive the table
};

}  // namespace quiver::routing
