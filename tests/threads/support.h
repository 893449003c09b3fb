// Several threads that begin at the same moment.
#pragma once

#include <barrier>
#include <cstddef>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace quiver::testing {

inline constexpr std::size_t kThreads = 4;

/// Calls work(i) on thread i of kThreads. Rethrows what the first of them threw.
inline void on_threads(const std::function<void(std::size_t)>& work) {
  std::barrier start(static_cast<std::ptrdiff_t>(kThreads));
  std::vector<std::exception_ptr> errors(kThreads);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        try {
          work(i);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      });
    }
  }
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace quiver::testing
