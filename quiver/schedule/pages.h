// Which rows of a cache of keys and values are whose.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace quiver::schedule {

/// Rows [first, first + length) of a cache.
struct RowSpan {
  std::int64_t first = 0;
  std::int64_t length = 0;
  bool operator==(const RowSpan&) const = default;
};

/// Appends rows to a list of runs. Rows that follow the last run prolong it, so that attention reads as few runs as there are.
void append_rows(std::vector<RowSpan>& rows, RowSpan more);
/// The rows [first, first + count) of those that the runs list, counted from 0.
std::vector<RowSpan> part_of_rows(const std::vector<RowSpan>& rows, std::int64_t first, std::int64_t count);
std::int64_t count_rows(const std::vector<RowSpan>& rows);

class PageLease;

/// The rows of a cache in pages, and how many leases hold each page. A page that no lease holds is free. Not thread-safe.
class CachePages {
 public:
  /// Throws kUsage unless both are positive. A last page that would not be whole is left out.
  CachePages(std::int64_t num_rows, std::int64_t page_rows);
  CachePages(const CachePages&) = delete;
  CachePages& operator=(const CachePages&) = delete;

  std::int64_t num_pages() const { return static_cast<std::int64_t>(num_leases_.size()); }
  std::int64_t num_free() const { return num_free_; }
  std::int64_t page_rows() const { return page_rows_; }
  /// Pages that `num_rows` rows take.
  std::int64_t pages_for(std::int64_t num_rows) const { return (num_rows + page_rows_ - 1) / page_rows_; }

  /// Appends runs of `num_rows` rows in free pages to `rows`, and returns the lease of these pages. Takes the smallest free run that holds
  /// all, else the largest ones. Throws kInternal if there are too few free pages.
  PageLease take(std::int64_t num_rows, std::vector<RowSpan>& rows);
  /// One more lease of the pages that these rows lie in.
  PageLease share(const std::vector<RowSpan>& rows);

 private:
  friend class PageLease;
  std::vector<RowSpan> free_runs() const;  // of pages
  void release(const std::vector<std::int64_t>& pages);

  std::int64_t page_rows_;
  std::vector<std::int32_t> num_leases_;  // of each page
  std::int64_t num_free_;
};

/// Holds pages for as long as it lives. The pages must outlive it.
class PageLease {
 public:
  PageLease(CachePages& owner, std::vector<std::int64_t> pages) : owner_(&owner), pages_(std::move(pages)) {}
  PageLease(PageLease&& other) noexcept : owner_(other.owner_), pages_(std::exchange(other.pages_, {})) {}
  PageLease& operator=(PageLease&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(pages_, other.pages_);
    return *this;
  }
  ~PageLease() { owner_->release(pages_); }
  std::int64_t num_pages() const { return static_cast<std::int64_t>(pages_.size()); }

 private:
  CachePages* owner_;
  std::vector<std::int64_t> pages_;  // ascending, each once
};

}  // namespace quiver::schedule
