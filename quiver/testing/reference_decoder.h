// The slow, obvious twin of model/decoder.h: a description interpreted by plain operations with autograd.
#pragma once

#include <torch/types.h>

#include <functional>
#include <map>
#include <string>

#include "quiver/adapters/lora.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/decoder.h"

namespace quiver::testing {

/// A linear map by its definition: y [T, d_out] of x [T, d_in], W [d_out, d_in] and b [d_out], which may be undefined. All float64.
using LinearDefinition = std::function<torch::Tensor(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias)>;
/// Definitions by path. A path that is not there has x W^T + b.
using LinearDefinitions = std::map<std::string, LinearDefinition>;

/// x W^T + b.
torch::Tensor plain_linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias);
/// x W^T + b + scaling (x * mask) A^T B^T (Hu et al. 2021, eq. 3), or with a magnitude DoRA (Liu et al. 2024, eq. 5), whose norm is a
/// constant to autograd. An undefined mask is 1.
LinearDefinition lora_definition(const adapters::LoraPair& pair, const torch::Tensor& mask = {});
/// x W^T + b + sigmoid(x v) scaling x A^T B^T (Muqeeth et al. 2024, sec. 3.1).
LinearDefinition gated_definition(const adapters::LoraPair& pair, const torch::Tensor& gate);
/// lora_definition of every pair.
LinearDefinitions adapter_definitions(const adapters::LoraAdapter& adapter);

/// The final, normalised hidden state of each row of the forest, [T, d] float64 on the CPU, of the model's weights without its updates.
/// Differentiable in whatever the definitions use. Shares no code with the passes: one operation after another, a dense mask, all rows.
torch::Tensor reference_hidden(const model::Model& model, const forest::TokenForest& forest, const LinearDefinitions& definitions = {});

/// The logits of hidden states [T, d] float64, [T, V].
torch::Tensor reference_logits(const model::Model& model, const torch::Tensor& hidden);

/// sum_n weight_n * -log softmax(head(hidden[row_n]))[token_n], a float64 scalar.
torch::Tensor reference_loss(const model::Model& model, const forest::TokenForest& forest, const model::LossTargets& targets,
                             const LinearDefinitions& definitions = {});

}  // namespace quiver::testing
