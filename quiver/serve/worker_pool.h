// Threads that do the short work between the network and the engine.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace quiver::serve {

/// Runs functions, in the order in which they are posted, on some threads. A function must not throw. Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(int num_threads);
  /// Runs what was posted, then ends.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void post(std::function<void()> work);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool ends_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quiver::serve
