// Forward and backward passes of a Llama without autograd, for inference and for training adapters.
//
// All but attention works row by row, so each thread takes its share of the rows through everything between two
// attentions, and threads wait for each other twice a layer instead of after every operation (nn/row_parts.h). After the last attention only the rows that are wanted
// go on. Llama::hidden with autograd is the definition these are tested against.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

#include "quiver/model/llama.h"

namespace quiver::model {

/// The final hidden states of the rows `wanted` (indices into rows; repeated ones are computed again), [W, d].
/// No gradients.
torch::Tensor hidden_of(const Llama& model, const ForwardRows& rows, std::span<const std::int64_t> wanted);
/// Those of all rows, [T, d].
torch::Tensor hidden_of_all(const Llama& model, const ForwardRows& rows);

/// What a loss is made of: sum_n weight_n * -log p(token_n | the path to row_n).
struct LossTargets {
  std::vector<std::int64_t> rows;  ///< [N]
  torch::Tensor tokens;            ///< [N] int64
  torch::Tensor weights;           ///< [N] floating
};

/// The loss; adds its gradient in the parameters of the model's projections to theirs (nn::Projection::add_gradients).
/// No gradient is computed below the first projection that has parameters.
double add_loss_gradient(const Llama& model, const ForwardRows& rows, const LossTargets& targets);

}  // namespace quiver::model
