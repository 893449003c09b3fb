#include "quiver/base/module_path.h"

#include <algorithm>
#include <charconv>

namespace quiver {

BlockOfPath block_of(std::string_view path) {
  for (std::size_t begin = 0; begin < path.size();) {
    const auto end = std::min(path.find('.', begin), path.size());
    std::int64_t number = 0;
    const auto [stop, error] = std::from_chars(path.data() + begin, path.data() + end, number);
    if (error == std::errc() && stop == path.data() + end && number >= 0) return {std::string(path.substr(0, end)), number};
    begin = end + 1;
  }
  return {std::string(path), 0};
}

}  // namespace quiver
