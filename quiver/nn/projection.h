// The seam where adapters enter a model.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace quiver::nn {

/// A linear map of a transformer, [T, d_in] -> [T, d_out]. A model owns projections by path
/// ("layers.3.self_attn.q_proj") and never hears of adapters; a LoRA, or a bank of LoRAs with a router, wraps one.
/// Thread-safe: forward is const.
class Projection {
 public:
  virtual ~Projection() = default;
  /// x [T, d_in] -> [T, d_out], in x's dtype.
  virtual torch::Tensor forward(const torch::Tensor& x) const = 0;
  virtual std::int64_t in_features() const = 0;
  virtual std::int64_t out_features() const = 0;
  /// The frozen weight below all wrappers, [d_out, d_in]. Where it is kept in another layout, a copy: for merging and
  /// for tests, not for every step.
  virtual torch::Tensor base_weight() const = 0;
  virtual torch::Device device() const = 0;
  /// y -> x of the frozen map: dy [T, d_out] -> dy W [T, d_in]. For the backward pass of wrappers.
  virtual torch::Tensor backward(const torch::Tensor& dy) const = 0;
};

using ProjectionPtr = std::shared_ptr<const Projection>;
/// Projections by path, in path order.
using ProjectionMap = std::map<std::string, ProjectionPtr>;

/// y = x W^T + b with frozen W and b: no gradient of either is ever computed.
///
/// On a CPU that multiplies bfloat16, W is kept in the blocked layout of oneDNN's products alone (and, once a backward
/// pass has asked for it, W^T too), which saves laying it out anew at every product; the values are the same bit for bit.
class DenseProjection : public Projection {
 public:
  /// Throws kMismatch unless weight is [d_out, d_in] and bias, if defined, [d_out] of the same dtype.
  explicit DenseProjection(torch::Tensor weight, torch::Tensor bias = {});
  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor backward(const torch::Tensor& dy) const override;
  std::int64_t in_features() const override;
  std::int64_t out_features() const override;
  torch::Tensor base_weight() const override;
  torch::Device device() const override;

 private:
  struct Weights;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace quiver::nn
