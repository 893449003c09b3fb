// Low-rank adapters as values.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quiver/adapters/lora_options.h"

namespace quiver::adapters {

/// alpha / r, or alpha / sqrt(r) if rank-stabilised: the one place where a LoRA's scaling is computed.
double scaling(double alpha, std::int64_t rank, bool use_rslora);

struct LoraAdapter;
/// Whether every lora_b is 0: an adapter as it was before its first step of training. A DoRA's magnitude is not looked at.
bool changes_nothing(const LoraAdapter& adapter);

/// One low-rank update of a linear weight,
///
///   delta_w = scaling * B A,   scaling = alpha / r        (Hu et al. 2021, eq. 3 and sec. 4.1)
///                              scaling = alpha / sqrt(r)  (rank-stabilised, Kalajdzievski 2023)
///
/// Shapes: lora_a [r, d_in], lora_b [d_out, r], delta_w [d_out, d_in].
/// Dtype:  any floating dtype, the same for A and B.
///
/// A pair with a magnitude m [d_out], of A's dtype, is a DoRA (Liu et al. 2024): what it does depends on the weight too
/// (dora_update.h), and delta_w is of the direction alone.
/// A pair with a bias c [d_out], of A's dtype, adds scaling * c too (PEFT's lora_bias). No pair has both.
/// A value type: copies share storage, as torch::Tensor does. Immutable, thread-safe.
class LoraPair {
 public:
  /// Throws kMismatch unless A and B are 2-D, floating, of one dtype, and agree on r >= 1, alpha is finite, and m or c, if
  /// defined, fits them.
  LoraPair(torch::Tensor lora_a, torch::Tensor lora_b, double alpha, bool use_rslora = false, torch::Tensor magnitude = {},
           torch::Tensor bias = {});
  /// The same kind of pair with other tensors, as tensors() lists them.
  LoraPair with_tensors(const std::vector<torch::Tensor>& tensors) const;

  const torch::Tensor& lora_a() const { return lora_a_; }
  const torch::Tensor& lora_b() const { return lora_b_; }
  const torch::Tensor& magnitude() const { return magnitude_; }  ///< undefined unless a DoRA
  const torch::Tensor& bias() const { return bias_; }            ///< undefined unless lora_bias
  /// All that is trained: A, B, and m or c if there is one.
  std::vector<torch::Tensor> tensors() const;
  std::int64_t rank() const { return lora_a_.size(0); }
  std::int64_t in_features() const { return lora_a_.size(1); }
  std::int64_t out_features() const { return lora_b_.size(0); }
  double alpha() const { return alpha_; }
  bool use_rslora() const { return use_rslora_; }
  double scaling() const;

  /// x delta_w^T without forming delta_w: x [..., d_in] -> [..., d_out], in x's dtype. Throws kUnsupported for a DoRA.
  torch::Tensor apply(const torch::Tensor& x) const;
  /// delta_w itself, [d_out, d_in]. For merging and for tests, not for inference.
  torch::Tensor delta() const;
  LoraPair to(torch::Device device, torch::Dtype dtype) const;

 private:
  torch::Tensor lora_a_;
  torch::Tensor lora_b_;
  torch::Tensor magnitude_, bias_;
  double alpha_;
  bool use_rslora_;
};

/// The prompt_format of adapters that Quiver trained before it knew chat templates.
inline constexpr const char* kBareText = "bare text";

/// A weight or bias in place of the base's.
struct WholeWeight {
  torch::Tensor value;
  bool is_of_tied_head = false;  ///< of an embedding: a head that is tied to it changes with it
};
/// Rows of an embedding in place of the base's. A tied head changes with them.
struct TokenRows {
  std::vector<std::int64_t> tokens;
  torch::Tensor rows;  ///< [tokens, d]
};

/// One trained set of LoRA pairs, by projection path ("layers.3.self_attn.q_proj"), "lm_head" or an embedding's path ("embed_tokens", d_in
/// being the vocabulary), with what is known of it.
struct LoraAdapter {
  std::string name;
  LoraOptions options;
  std::string base_model;                 ///< base_model_name_or_path of PEFT
  std::string base_fingerprint;           ///< Model::fingerprint of the base it was trained on; empty if unknown
  std::map<std::string, LoraPair> pairs;  ///< never empty in a valid adapter
  std::string peft_config = {};           ///< the adapter_config.json it was loaded from; empty if made by Quiver
  std::string prompt_format = {};         ///< of the text it was trained on, as data::describe names it; empty if unknown
  /// PEFT's modules_to_save, by the names of the model's weights ("lm_head.weight"), and its trainable_token_indices by path. An adapter
  /// with them serves alone (refuse_more_than_lora).
  std::map<std::string, WholeWeight> whole = {};
  std::map<std::string, TokenRows> tokens = {};
};

/// Throws kUnsupported, naming the adapter and what was asked of it ("route by it"), if it has more than LoRAs: a DoRA's magnitude, biases,
/// whole weights. Mixtures, clusters and routers are defined for low-rank updates that do not depend on the weight.
void refuse_more_than_lora(const LoraAdapter& adapter, const char* what);
/// Throws kUsage, naming the adapter, the path and what was asked of it, for factors that are NaN or infinite.
void refuse_not_finite(const LoraAdapter& adapter, const char* what);

/// b + scaling * c in b's dtype, of the bias b [d_out] of the map below; undefined, it is zero. Undefined for a pair without a bias under a
/// map without one.
torch::Tensor merged_bias(const torch::Tensor& bias, const LoraPair& pair);
/// W + delta_w, its rows scaled to the magnitude of a DoRA, computed in float32 (float64 if either is), in the dtype and on the device of
/// `weight` [d_out, d_in]. Throws kMismatch unless the shapes agree.
torch::Tensor merged_weight(const torch::Tensor& weight, const LoraPair& pair);

}  // namespace quiver::adapters
