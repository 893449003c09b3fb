// A pass over few rows that read a KV cache: what decoding does for every token.
#pragma once

#include <torch/types.h>

#include <memory>
#include <vector>

#include "quiver/model/block.h"

namespace quiver::model {

class Model;
struct ForwardRows;

/// The blocks of a model whose linear maps are quantised, as stages over plain memory. In a stage, threads share out maps that do not wait
/// for each other, or attention; then each row goes on alone to the input of the next. Threads wait for each other five times a layer
/// (backend::PhaseTeam), and nothing is allocated meanwhile but by updates.
///
/// The results are those of the general pass (decoder.h) up to rounding, and have the same bits for any number of threads. A row does not
/// depend on the rows beside it. Immutable, thread-safe.
class FewRows {
 public:
  /// More rows take the general pass. 64 rows are 1.3 times as fast here.
  static constexpr std::int64_t kMostRows = 64;

  /// Null where a linear map is not quantised, is trained, or has an update that is no nn::AdditiveUpdate.
  static std::shared_ptr<const FewRows> compile(const std::vector<Block>& blocks);
  virtual ~FewRows() = default;
  /// Whether the pass can compute these rows: few, of a model on the CPU, that attend to a KV cache, a few of each text.
  virtual bool takes(const ForwardRows& rows) const = 0;
  /// hidden_of_all of such rows; `model` is the one whose blocks were compiled.
  virtual torch::Tensor hidden(const Model& model, const ForwardRows& rows) const = 0;
};

}  // namespace quiver::model
