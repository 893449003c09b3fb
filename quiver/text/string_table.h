// Many short strings in one run of memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::text {

/// Strings by number. Eight bytes each beside the strings' own, where a std::string takes 32 and more. Immutable, thread-safe.
class StringTable {
 public:
  StringTable() = default;
  explicit StringTable(std::span<const std::string> strings) {
    std::size_t num_bytes = 0;
    for (const auto& string : strings) num_bytes += string.size();
    bytes_.reserve(num_bytes);
    ends_.reserve(strings.size());
    for (const auto& string : strings) {
      bytes_ += string;
      ends_.push_back(bytes_.size());
    }
  }
  /// `number` is that of a string. Valid as long as the table.
  std::string_view operator[](std::size_t number) const {
    const auto begin = number == 0 ? 0 : ends_[number - 1];
    return std::string_view(bytes_).substr(begin, ends_[number] - begin);
  }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;
};

}  // namespace quiver::text
