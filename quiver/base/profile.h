// Where the time of a computation goes, by stage.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quiver {

/// The stages of a training step or a forward pass.
enum class Stage { kProducts, kLora, kAttention, kNorm, kRotation, kActivation, kLoss, kOptimizer, kBatch };
inline constexpr auto kStageNames =
    std::to_array<std::string_view>({"products by frozen weights", "products by LoRA factors", "attention", "RMS norm", "rotary embedding",
                                     "SwiGLU", "softmax and loss", "optimizer", "building batches"});
static_assert(kStageNames.size() == static_cast<std::size_t>(Stage::kBatch) + 1, "a name for each stage");

/// Seconds that threads spent in each stage since profiling was switched on; sums over threads. Process-wide.
class Profile {
 public:
  static void enable() { enabled_.store(true, std::memory_order_relaxed); }
  static bool is_enabled() { return enabled_.load(std::memory_order_relaxed); }
  static void add(Stage stage, std::int64_t nanoseconds) {
    nanoseconds_[static_cast<std::size_t>(stage)].fetch_add(nanoseconds, std::memory_order_relaxed);
  }
  static double seconds(Stage stage) {
    return static_cast<double>(nanoseconds_[static_cast<std::size_t>(stage)].load(std::memory_order_relaxed)) * 1e-9;
  }

 private:
  static inline std::atomic<bool> enabled_ = false;
  static inline std::array<std::atomic<std::int64_t>, kStageNames.size()> nanoseconds_ = {};
};

/// Counts this thread's time until the end of the scope. A timer within a timer's scope would count twice: there is
/// one per leaf of the computation. Costs one load where profiling is off.
class StageTimer {
 public:
  explicit StageTimer(Stage stage) : stage_(stage), is_on_(Profile::is_enabled()) {
    if (is_on_) start_ = std::chrono::steady_clock::now();
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;
  ~StageTimer() {
    if (is_on_)
      Profile::add(stage_, std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count());
  }

 private:
  Stage stage_;
  bool is_on_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace quiver
