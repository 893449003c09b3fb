// Adapters of tasks as mixtures of a few skills: Poly (Ponti et al. 2023), MHR (Caccia et al. 2023), and weights of adapters that are
// learnt (LoraHub, pi-tuning). Everything here is differentiable by autograd.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/base/random.h"

namespace quiver::merge {

/// From the logits z of a task to the weights w of K skills.
enum class MixRule {
  kSigmoid,  ///< w_k = sigmoid(z_k) / (sum_j sigmoid(z_j) + 1e-8)   (Poly)
  kSoftmax,  ///< w = softmax(z)   (pi-tuning)
  kLinear,   ///< w = z   (LoraHub)
};

/// What shares one set of weights.
enum class MixUnit {
  kProjection,  ///< "layers.3.self_attn.q_proj"
  kBlock,       ///< "layers.3.self_attn"
  kLayer,       ///< "layers.3"
  kModel,       ///< everything
};

struct MixShape {
  MixRule rule = MixRule::kSigmoid;
  MixUnit unit = MixUnit::kProjection;
  /// S of MHR: the inputs of lora_a and the outputs of lora_b are cut into S equal blocks, each with weights of its own. 1 is Poly.
  std::int64_t num_heads = 1;
};

/// Throws kUsage for a name that is not one of sigmoid, softmax, linear; projection, block, layer, model.
MixRule parse_mix_rule(const std::string& text);
MixUnit parse_mix_unit(const std::string& text);
const char* mix_rule_name(MixRule rule);
const char* mix_unit_name(MixUnit unit);

/// Which unit each path of an adapter belongs to, numbered in path order.
struct MixUnits {
  std::map<std::string, std::int64_t> of_path;
  std::int64_t count = 0;
};
MixUnits mix_units(const adapters::LoraAdapter& adapter, MixUnit unit);

/// Logits whose sigmoid is a draw from RelaxedBernoulli(temperature 1) of those given (Maddison et al. 2017), differentiable in them:
/// z + log u - log(1 - u), u uniform in (0, 1), drawn in the order of the elements. How Ponti et al. 2023 train Poly.
torch::Tensor relaxed_bernoulli(const torch::Tensor& logits, RandomStream& random);

/// [..., K] -> [..., K].
torch::Tensor mix_weights(const torch::Tensor& logits, MixRule rule);

/// Factors mixed head by head: with columns of A (rows of B) in S equal blocks,
///
///   A*_t[:, block s] = sum_k w_tsk A_k[:, block s],   B*_t[block s, :] = sum_k w_tsk B_k[block s, :]
///
/// lora_a [K, r, d_in], weights [T, S, K] -> [T, r, d_in]; lora_b [K, d_out, r] -> [T, d_out, r].
torch::Tensor mix_lora_a(const torch::Tensor& lora_a, const torch::Tensor& weights);
torch::Tensor mix_lora_b(const torch::Tensor& lora_b, const torch::Tensor& weights);

/// Throws as check_mixable (kFactors), and kUsage where S does not divide the features of a projection.
void check_skills(std::span<const adapters::LoraAdapter> skills, const MixShape& shape);

/// The adapter of a task with logits [U, S, K]: factors are mixed, so it has the skills' rank and serves like any other. The paper's
/// composition (method of Ostapenko et al. 2024, sec. 4.2), exactly. Throws as check_skills, and kMismatch for logits of another shape.
adapters::LoraAdapter mix_skills(std::span<const adapters::LoraAdapter> skills, const torch::Tensor& logits, const MixShape& shape,
                                 const std::string& name);

}  // namespace quiver::merge
