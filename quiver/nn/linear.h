// A linear map of a model: a matrix, a bias, and a list of updates.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "quiver/nn/matrix.h"
#include "quiver/nn/update.h"

namespace quiver::nn {

/// y = u_n(... u_1(x W^T + b)), [T, d_in] -> [T, d_out], with updates u_i. The trained ones are the lowest.
/// A value: copies share the matrix and the updates. Thread-safe.
class Linear {
 public:
  Linear() = default;
  /// Throws kMismatch unless bias, if defined, is [d_out] of the matrix' dtype.
  explicit Linear(MatrixPtr weight, torch::Tensor bias = {});
  /// make_matrix(weight) with a bias.
  explicit Linear(const torch::Tensor& weight, torch::Tensor bias = {}) : Linear(make_matrix(weight), std::move(bias)) {}

  std::int64_t in_features() const { return weight_->in_features(); }
  std::int64_t out_features() const { return weight_->out_features(); }
  torch::Device device() const { return weight_->device(); }
  const Matrix& weight() const { return *weight_; }
  const torch::Tensor& bias() const { return bias_; }  ///< undefined: none
  std::int64_t num_parameters() const { return in_features() * out_features() + (bias_.defined() ? out_features() : 0); }

  /// The same map under one more update.
  Linear with(UpdatePtr update) const;
  /// The same map with its lowest update trained. Throws kInternal over updates that have no backward pass.
  Linear with(TrainedUpdate update) const;
  bool is_trained() const { return !trained_.empty(); }
  bool has_updates() const { return !updates_.empty(); }
  /// The same updates over another matrix, without a bias.
  Linear over(MatrixPtr weight) const;
  /// Those that are not trained, the lowest first.
  const std::vector<UpdatePtr>& updates() const { return updates_; }

  /// The map of x [T, d_in], all rows being of group 0.
  torch::Tensor forward(const torch::Tensor& x) const;
  /// onto + the map of some rows of a batch; `onto` may be undefined.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows, LinearRecord& record) const;
  /// Adds the gradient of x to *dx, undefined being zero, unless dx is null. x and record are those of forward. Needs a map whose
  /// updates are all trained.
  void backward(const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows, LinearRecord& record) const;
  /// Prepares the matrix for backward, unless an update takes its place.
  void prepare_backward() const;
  /// Adds a record's gradients to the sums of the trained updates. Not thread-safe.
  void add_gradients(const LinearRecord& record) const;
  /// Bytes that forward leaves for every row where the map is trained.
  std::int64_t saved_bytes_per_row() const;

 private:
  friend class Below;
  torch::Tensor forward_at(std::size_t level, const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows,
                           LinearRecord& record) const;
  void backward_at(std::size_t level, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows,
                   LinearRecord& record) const;

  MatrixPtr weight_;
  torch::Tensor bias_;
  std::vector<TrainedUpdate> trained_;
  std::vector<UpdatePtr> updates_;  // above the trained ones
};

/// Linear maps by path, in path order.
using LinearMap = std::map<std::string, Linear>;

}  // namespace quiver::nn
