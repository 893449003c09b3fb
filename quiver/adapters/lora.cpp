#include "quiver/adapters/lora.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {

LoraPair::LoraPair(torch::Tensor lora_a, torch::Tensor lora_b, double alpha, bool use_rslora, torch::Tensor magnitude, torch::Tensor bias)
    : lora_a_(std::move(lora_a)),
      lora_b_(std::move(lora_b)),
      magnitude_(std::move(magnitude)),
      bias_(std::move(bias)),
      alpha_(alpha),
      use_rslora_(use_rslora) {
  const bool is_pair = lora_a_.defined() && lora_b_.defined() && lora_a_.dim() == 2 && lora_b_.dim() == 2 && lora_a_.is_floating_point() &&
                       lora_a_.scalar_type() == lora_b_.scalar_type() && lora_a_.size(0) == lora_b_.size(1) && lora_a_.size(0) >= 1;
  if (!is_pair) {
    fail(ErrorKind::kMismatch,
         "not a LoRA pair: lora_a is {} and lora_b is {}; expected floating factors [r, d_in] and [d_out, r] of one dtype with r >= 1 (are "
         "A and B swapped or transposed?)",
         tensor::describe(lora_a_), tensor::describe(lora_b_));
  }
  if (!std::isfinite(alpha_)) fail(ErrorKind::kMismatch, "not a LoRA pair: alpha is {}, which is not finite", alpha_);
  const auto is_of_rows = [&](const torch::Tensor& t) {
    return t.dim() == 1 && t.size(0) == lora_b_.size(0) && t.scalar_type() == lora_a_.scalar_type();
  };
  if (magnitude_.defined() && !is_of_rows(magnitude_)) {
    fail(ErrorKind::kMismatch, "not a DoRA: the magnitude is {}, lora_b is {}; expected [d_out] of the factors' dtype",
         tensor::describe(magnitude_), tensor::describe(lora_b_));
  }
  if (bias_.defined() && (magnitude_.defined() || !is_of_rows(bias_))) {
    fail(ErrorKind::kMismatch,
         "not a LoRA with a bias: the bias is {}, lora_b is {}{}; expected [d_out] of the factors' dtype, and no DoRA",
         tensor::describe(bias_), tensor::describe(lora_b_), magnitude_.defined() ? ", a magnitude is there" : "");
  }
}

std::vector<torch::Tensor> LoraPair::tensors() const {
  if (magnitude_.defined()) return {lora_a_, lora_b_, magnitude_};
  if (bias_.defined()) return {lora_a_, lora_b_, bias_};
  return {lora_a_, lora_b_};
}

LoraPair LoraPair::with_tensors(const std::vector<torch::Tensor>& tensors) const {
  const auto third = tensors.size() > 2 ? tensors[2] : torch::Tensor();
  if (bias_.defined()) return LoraPair(tensors.at(0), tensors.at(1), alpha_, use_rslora_, {}, third);
  return LoraPair(tensors.at(0), tensors.at(1), alpha_, use_rslora_, third);
}

double LoraPair::scaling() const { return adapters::scaling(alpha_, rank(), use_rslora_); }

torch::Tensor LoraPair::apply(const torch::Tensor& x) const {
  if (magnitude_.defined()) fail(ErrorKind::kUnsupported, "a DoRA's update depends on the weight: attach it instead");
  if (x.dim() < 1 || x.size(-1) != in_features()) {
    fail(ErrorKind::kMismatch, "cannot apply a LoRA pair with lora_a {} to x {}: expected x [..., {}]", tensor::describe(lora_a_),
         tensor::describe(x), in_features());
  }
  const auto hidden = torch::matmul(x.to(lora_a_.scalar_type()), lora_a_.t());  // [..., r]
  auto y = torch::matmul(hidden, lora_b_.t());
  if (bias_.defined()) y = y + bias_;
  return (y * scaling()).to(x.scalar_type());
}

torch::Tensor LoraPair::delta() const { return torch::matmul(lora_b_, lora_a_) * scaling(); }

LoraPair LoraPair::to(torch::Device device, torch::Dtype dtype) const {
  std::vector<torch::Tensor> moved;
  for (const auto& t : tensors()) moved.push_back(t.to(device, dtype));
  return with_tensors(moved);
}

double scaling(double alpha, std::int64_t rank, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

void check(const LoraOptions& options) {
  if (options.rank < 1) fail(ErrorKind::kUsage, "a LoRA of rank {}: the rank must be at least 1", options.rank);
  if (!std::isfinite(options.alpha)) fail(ErrorKind::kUsage, "LoRA alpha is {}: it must be finite", options.alpha);
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail(ErrorKind::kUsage, "LoRA dropout is {}: it must be in [0, 1)", options.dropout);
  }
  if (options.use_dora && options.dropout > 0) {
    fail(ErrorKind::kUsage, "LoRA dropout is {} with DoRA: it must be 0, since PEFT's DoRA drops inputs of the base too", options.dropout);
  }
  if (options.target_modules.empty()) {
    fail(ErrorKind::kUsage, "no target modules: name the projections to adapt, for example q_proj, or all-linear");
  }
}

void refuse_more_than_lora(const LoraAdapter& adapter, const char* what) {
  const auto refuse = [&](const std::string& is, const std::string& path) {
    fail(ErrorKind::kUnsupported, "adapter '{}' {} (at {}): it cannot be used to {}, only alone (`adapter`, or `method=oracle=NAME`)",
         adapter.name, is, path, what);
  };
  for (const auto& [path, pair] : adapter.pairs) {
    if (pair.magnitude().defined()) refuse("is a DoRA", path);
    if (pair.bias().defined()) refuse("has biases of its own, lora_bias", path);
  }
  if (!adapter.whole.empty()) refuse("holds whole weights, modules_to_save", adapter.whole.begin()->first);
  if (!adapter.tokens.empty()) refuse("holds rows of single tokens, trainable_token_indices", adapter.tokens.begin()->first);
}

void refuse_not_finite(const LoraAdapter& adapter, const char* what) {
  for (const auto& [path, pair] : adapter.pairs) {
    for (const auto& factor : {pair.lora_a(), pair.lora_b()}) {
      if (tensor::all_finite(factor)) continue;
      fail(ErrorKind::kUsage,
           "adapter '{}' holds NaN or infinite values at '{}': it cannot be used to {} (did its training diverge? leave it out)",
           adapter.name, path, what);
    }
  }
}

bool changes_nothing(const LoraAdapter& adapter) {
  return std::ranges::none_of(adapter.pairs, [](const auto& entry) { return entry.second.lora_b().any().template item<bool>(); });
}

torch::Tensor merged_bias(const torch::Tensor& bias, const LoraPair& pair) {
  if (!pair.bias().defined()) return bias;
  const torch::NoGradGuard no_grad;
  const auto added = pair.bias().to(torch::promote_types(torch::kFloat, pair.bias().scalar_type())) * pair.scaling();
  return bias.defined() ? (bias.to(added.scalar_type()) + added.to(bias.device())).to(bias.scalar_type()) : added;
}

torch::Tensor merged_weight(const torch::Tensor& weight, const LoraPair& pair) {
  if (weight.dim() != 2 || weight.size(0) != pair.out_features() || weight.size(1) != pair.in_features()) {
    fail(ErrorKind::kMismatch, "cannot merge a LoRA pair with delta_w [{}, {}] into a weight {}", pair.out_features(), pair.in_features(),
         tensor::describe(weight));
  }
  const torch::NoGradGuard no_grad;
  const auto common = torch::promote_types(weight.scalar_type(), pair.lora_a().scalar_type());
  const auto dtype = torch::promote_types(torch::kFloat, common);
  const auto wide = pair.to(weight.device(), dtype);
  auto merged = weight.to(dtype) + wide.delta();
  if (wide.magnitude().defined()) merged *= (wide.magnitude() / merged.norm(2, 1)).unsqueeze(1);
  return merged.to(weight.scalar_type());
}

}  // namespace quiver::adapters
