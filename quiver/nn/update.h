// What changes a linear map: adapters, routers, taps.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quiver/nn/rows.h"

namespace quiver::nn {

class Linear;

/// What an update leaves for its own backward pass, and the gradients of its parameters from these rows.
struct UpdateRecord {
  std::vector<torch::Tensor> saved;
  std::vector<torch::Tensor> gradients;
};
/// The records of a linear map's updates, the lowest first.
using LinearRecord = std::vector<UpdateRecord>;

/// The linear map under an update: the matrix, its bias, and the updates below this one.
class Below {
 public:
  Below(const Linear& linear, std::size_t level, const Rows& rows, LinearRecord& record)
      : linear_(&linear), level_(level), rows_(&rows), record_(&record) {}
  /// onto + the map of x; `onto` [T, d_out] may be undefined.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& onto) const;
  /// Adds the gradient of x to *dx, undefined being zero; a null dx is not computed. The updates below leave their gradients.
  void backward(const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx) const;

 private:
  const Linear* linear_;
  std::size_t level_;
  const Rows* rows_;
  LinearRecord* record_;
};

/// A change of a linear map [T, d_in] -> [T, d_out]. It computes the map below and its own part, in the order it likes.
/// Thread-safe: forward is const, and several threads compute parts of one batch.
class Update {
 public:
  virtual ~Update() = default;
  /// onto + the changed map of x, in x's dtype; `onto` [T, d_out] may be undefined.
  virtual torch::Tensor forward(const Below& below, const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows,
                                UpdateRecord& record) const = 0;
  /// Whether the update takes the place of the map below, which it never computes.
  virtual bool replaces_below() const { return false; }
};
using UpdatePtr = std::shared_ptr<const Update>;

/// An update that only adds to the map below: its forward is below(x) + what add_to adds, up to rounding.
class AdditiveUpdate {
 public:
  virtual ~AdditiveUpdate() = default;
  /// y[t] += what the update adds there, for `begin` <= t < `end`: x [T, d_in] and y [T, d_out] float32, contiguous, on the CPU. `rows`
  /// says which rows of the batch [begin, end) are. Thread-safe.
  virtual void add_to(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const Rows& rows, const torch::Tensor& y) const = 0;
};

/// Sums of the gradients of an update's parameters, over the parts of a batch and over batches. The owner of the parameters points
/// these at its own memory, which an optimiser or an all-reduce reads.
struct GradientSink {
  std::vector<torch::Tensor> sums;
};

/// An update with a backward pass. The pass of training takes no other.
class TrainableUpdate : public Update {
 public:
  /// Leaves the gradients of the parameters in record.gradients, and adds that of x to *dx (Below::backward). dy [T, d_out]; x and
  /// record are those of forward.
  virtual void backward(const Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows,
                        UpdateRecord& record) const = 0;
  /// Adds one part's record.gradients to the sums. Parts come in their order, one at a time.
  virtual void add_gradients(const std::vector<torch::Tensor>& gradients, GradientSink& sink) const = 0;
  /// Bytes that forward leaves in a record for every row.
  virtual std::int64_t saved_bytes_per_row() const = 0;
};
using TrainableUpdatePtr = std::shared_ptr<const TrainableUpdate>;

/// An update that is trained, and where its gradients go.
struct TrainedUpdate {
  TrainableUpdatePtr update;
  std::shared_ptr<GradientSink> sink;
};
/// Trained updates by the path of their linear map.
using TrainedUpdates = std::map<std::string, TrainedUpdate>;

}  // namespace quiver::nn
