#include "quiver/schedule/pages.h"

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::schedule {

void append_rows(std::vector<RowSpan>& rows, RowSpan more) {
  if (more.length == 0) return;
  if (!rows.empty() && rows.back().first + rows.back().length == more.first)
    rows.back().length += more.length;
  else
    rows.push_back(more);
}

std::vector<RowSpan> part_of_rows(const std::vector<RowSpan>& rows, std::int64_t first, std::int64_t count) {
  std::vector<RowSpan> part;
  for (const auto& run : rows) {
    const auto begin = std::clamp<std::int64_t>(first, 0, run.length), end = std::clamp<std::int64_t>(first + count, 0, run.length);
    append_rows(part, {run.first + begin, end - begin});
    first -= run.length;
  }
  return part;
}

std::int64_t count_rows(const std::vector<RowSpan>& rows) {
  std::int64_t count = 0;
  for (const auto& run : rows) count += run.length;
  return count;
}

CachePages::CachePages(std::int64_t num_rows, std::int64_t page_rows) : page_rows_(page_rows), num_free_(0) {
  if (page_rows < 1 || num_rows < page_rows) {
    fail(ErrorKind::kUsage, "a KV cache of {} rows in pages of {}; expected at least one page, of at least one row", num_rows, page_rows);
  }
  num_free_ = num_rows / page_rows;
  num_leases_.assign(static_cast<std::size_t>(num_free_), 0);
}

std::vector<RowSpan> CachePages::free_runs() const {
  std::vector<RowSpan> runs;
  for (std::int64_t page = 0; page < num_pages(); ++page) {
    if (num_leases_[static_cast<std::size_t>(page)] == 0) append_rows(runs, {page, 1});
  }
  return runs;
}

PageLease CachePages::take(std::int64_t num_rows, std::vector<RowSpan>& rows) {
  const auto wanted = pages_for(num_rows);
  if (wanted > num_free_) fail(ErrorKind::kInternal, "{} pages of a KV cache that has {} free", wanted, num_free_);
  auto runs = free_runs();
  // Shortest first; of equals, as they lie.
  std::ranges::stable_sort(runs, {}, &RowSpan::length);
  const auto fitting = std::ranges::find_if(runs, [&](const RowSpan& run) { return run.length >= wanted; });
  if (fitting != runs.end())
    runs = {*fitting};
  else
    std::ranges::reverse(runs);
  std::vector<std::int64_t> pages;
  for (const auto& run : runs) {
    if (static_cast<std::int64_t>(pages.size()) == wanted) break;
    const auto count = std::min(run.length, wanted - static_cast<std::int64_t>(pages.size()));
    const auto length = std::min(count * page_rows_, num_rows - static_cast<std::int64_t>(pages.size()) * page_rows_);
    append_rows(rows, {run.first * page_rows_, length});
    for (auto page = run.first; page < run.first + count; ++page) pages.push_back(page);
  }
  std::ranges::sort(pages);
  for (const auto page : pages) ++num_leases_[static_cast<std::size_t>(page)];
  num_free_ -= wanted;
  return {*this, std::move(pages)};
}

PageLease CachePages::share(const std::vector<RowSpan>& rows) {
  std::vector<std::int64_t> pages;
  for (const auto& run : rows) {
    for (auto page = run.first / page_rows_; page * page_rows_ < run.first + run.length; ++page) pages.push_back(page);
  }
  std::ranges::sort(pages);
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  for (const auto page : pages) {
    if (num_leases_[static_cast<std::size_t>(page)]++ == 0)
      fail(ErrorKind::kInternal, "page {} of a KV cache is shared and was free", page);
  }
  return {*this, std::move(pages)};
}

void CachePages::release(const std::vector<std::int64_t>& pages) {
  for (const auto page : pages) num_free_ += --num_leases_[static_cast<std::size_t>(page)] == 0 ? 1 : 0;
}

}  // namespace quiver::schedule
