// Watching what enters a linear map.
#pragma once

#include <functional>
#include <utility>

#include "quiver/nn/update.h"

namespace quiver::nn {

/// Shows `watch` the input of the map below and changes nothing: x [T, d_in] with the rows of the batch that it holds. Threads take parts
/// of a batch, so several may call `watch` at once.
class Tap final : public Update {
 public:
  using Watch = std::function<void(const torch::Tensor& x, const Rows& rows)>;
  explicit Tap(Watch watch) : watch_(std::move(watch)) {}
  torch::Tensor forward(const Below& below, const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows,
                        UpdateRecord&) const override {
    watch_(x, rows);
    return below.forward(x, onto);
  }

 private:
  Watch watch_;
};

}  // namespace quiver::nn
