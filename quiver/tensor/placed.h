// A constant where it is used.
#pragma once

#include <torch/types.h>

#include <memory>
#include <mutex>

namespace quiver::tensor {

/// A tensor that never changes, made on the CPU, with its copy on the device that asked for one last. Thread-safe; copies share the copy.
class Placed {
 public:
  Placed() = default;
  explicit Placed(torch::Tensor on_cpu) : on_cpu_(std::move(on_cpu)) {}

  bool defined() const { return on_cpu_.defined(); }
  const torch::Tensor& on_cpu() const { return on_cpu_; }
  torch::Tensor on(torch::Device device) const {
    if (device.is_cpu()) return on_cpu_;
    const std::lock_guard lock(elsewhere_->mutex);
    auto& copy = elsewhere_->copy;
    if (!copy.defined() || copy.device() != device) copy = on_cpu_.to(device);
    return copy;
  }

 private:
  struct Elsewhere {
    std::mutex mutex;
    torch::Tensor copy;
  };
  torch::Tensor on_cpu_;
  std::shared_ptr<Elsewhere> elsewhere_ = std::make_shared<Elsewhere>();
};

}  // namespace quiver::tensor
