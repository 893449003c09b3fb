// Forward and backward passes of a model without autograd, for inference and for training adapters.
//
// All but attention works row by row. So each thread takes its share of the rows through everything between two attentions, and threads
// wait for each other twice a layer instead of after every operation (backend/row_parts.h). After the last attention only the rows that
// are wanted go on. testing/reference_decoder.h is the slow twin.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/model/model.h"

namespace quiver::model {

/// The final hidden states of the rows `wanted` (indices into rows; repeated ones are computed again), [W, d].
/// No gradients.
torch::Tensor hidden_of(const Model& model, const ForwardRows& rows, std::span<const std::int64_t> wanted);
/// Those of all rows, [T, d]. Few rows over a KV cache take a pass of their own (few_rows.h) where the model allows it.
torch::Tensor hidden_of_all(const Model& model, const ForwardRows& rows);

/// What a loss is made of: sum_n weight_n * -log p(token_n | the path to row_n).
struct LossTargets {
  std::vector<std::int64_t> rows;  ///< [N]
  torch::Tensor tokens;            ///< [N] int64
  torch::Tensor weights;           ///< [N] floating
};

struct PassOptions {
  /// Keep only what enters each layer, and compute the rest again in the backward pass (Chen et al. 2016): the same
  /// numbers, about 30 % more time, a fraction of the memory.
  bool checkpoint_activations = false;
};

/// The loss. Adds its gradient in the parameters of the trained updates to their sinks (nn::GradientSink). No gradient is computed of a
/// tensor that does not depend on them. `terms`, if given, becomes the summands of the loss, [N].
double add_loss_gradient(const TrainedModel& trained, const ForwardRows& rows, const LossTargets& targets, const PassOptions& options = {},
                         torch::Tensor* terms = nullptr);
/// The loss alone.
double loss_of(const Model& model, const ForwardRows& rows, const LossTargets& targets);

/// About how many bytes add_loss_gradient holds at most beside the model, for a batch of so many rows and targets.
std::int64_t loss_gradient_bytes(const TrainedModel& trained, std::int64_t num_rows, std::int64_t num_targets,
                                 const PassOptions& options = {});

}  // namespace quiver::model
