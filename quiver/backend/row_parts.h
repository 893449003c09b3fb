// Rows of a batch divided among the threads.
#pragma once

#include <cstdint>
#include <functional>

namespace quiver::backend {

/// ceil(a / b), of positive numbers.
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Rows [begin, end) of a batch, the part-th share.
struct RowPart {
  std::int64_t index = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// Equal parts of `count` rows, a few for every thread: small enough for a thread's cache, large enough for products at
/// full speed. One part where dividing does not pay, and on another device than the CPU, whose operations are parallel themselves. A
/// function of the count, the device and the number of threads alone.
class RowParts {
 public:
  explicit RowParts(std::int64_t count, bool is_on_cpu = true);
  std::int64_t size() const { return num_parts_; }
  std::int64_t num_rows() const { return count_; }
  RowPart at(std::int64_t index) const;

  /// Calls f(part) for every part, each by one thread: what f computes with libtorch runs on that thread alone, under
  /// the caller's autograd and inference modes, so a chain of operations needs no waiting in between. A single part is the caller's, with
  /// all threads for each operation. Rethrows what f throws.
  void for_each(const std::function<void(const RowPart&)>& f) const;

 private:
  std::int64_t count_, num_parts_, rows_per_part_;
};

}  // namespace quiver::backend
