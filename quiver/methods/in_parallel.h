// Independent pieces of work on all threads.
#pragma once

#include <ATen/Parallel.h>

#include <cstdint>
#include <exception>
#include <vector>

namespace quiver::methods {

/// work(i) for each i below `count`. Of the errors, that of the smallest i is thrown, whatever the threads.
template <typename Work>
void in_parallel(std::size_t count, const Work& work) {
  std::vector<std::exception_ptr> errors(count);
  at::parallel_for(0, static_cast<std::int64_t>(count), /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      try {
        work(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  });
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace quiver::methods
