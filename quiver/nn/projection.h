// The seam where adapters enter a model.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace quiver::nn {

/// What a pass that does without autograd (model/forest_pass.h) keeps of one projection over some rows of a batch.
struct RowRecord {
  std::int64_t first_row = 0;            ///< the rows are [first_row, first_row + T) of the batch,
  torch::Tensor rows;                    ///< or, if defined, these, [T] int64
  const std::int32_t* groups = nullptr;  ///< of all rows of the batch (forest::Sequence::group); null: all are of group 0
  torch::Tensor hidden;                  ///< left by the forward pass for the backward pass: x A^T of a LoRA, [T, r]
  torch::Tensor output;                  ///< and what a DoRA scales, [T, d_out]
  std::vector<torch::Tensor> gradients;  ///< left by the backward pass: of the projection's parameters, from these rows
};

/// The groups of a record's T rows, in order; empty if all are of group 0.
std::vector<std::int32_t> row_groups(const RowRecord& record, std::int64_t num_rows);

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

  /// Whether there is something to train here: backward_rows then leaves gradients.
  virtual bool has_parameters() const { return false; }
  /// onto + forward(x), `onto` [T, d_out] or undefined, without autograd.
  virtual torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord& record) const;
  /// onto + the gradient of x, `onto` [T, d_in] or undefined; undefined unless `needs_dx`. x and record are those of
  /// forward_rows; the record takes the gradients of the parameters.
  virtual torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                      RowRecord& record) const;
  /// Lays out what backward_rows reads, if that was not done yet; otherwise its first call does.
  virtual void prepare_backward() const {}
  /// To be called after every change of the parameters, before the next pass: lays out anew what depends on them.
  virtual void update() {}
  /// Bytes that forward_rows leaves in a record for every row.
  virtual std::int64_t record_bytes() const { return 0; }
  /// Adds a record's gradients to those of the parameters. Not thread-safe.
  virtual void add_gradients(const RowRecord&) const {}
};

using ProjectionPtr = std::shared_ptr<const Projection>;
/// Projections by path, in path order.
using ProjectionMap = std::map<std::string, ProjectionPtr>;

/// y = x W^T + b with frozen W and b: no gradient of either is ever computed.
///
/// W is kept in the layout that this machine multiplies fastest alone (backend::FrozenMatrix), and once a backward pass has asked for it
/// W^T too.
class DenseProjection : public Projection {
 public:
  /// Throws kMismatch unless weight is [d_out, d_in] and bias, if defined, [d_out] of the same dtype.
  explicit DenseProjection(torch::Tensor weight, torch::Tensor bias = {});
  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor backward(const torch::Tensor& dy) const override;
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord& record) const override;
  torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                              RowRecord& record) const override;
  void prepare_backward() const override;
  std::int64_t in_features() const override;
  std::int64_t out_features() const override;
  torch::Tensor base_weight() const override;
  torch::Device device() const override;

 private:
  struct Weights;
  std::shared_ptr<const Weights> weights_;
};

}  // namespace quiver::nn
