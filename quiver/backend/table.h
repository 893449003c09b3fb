// The table of operations: a column of functions for each device and instruction set. This header is for the columns and for tests;
// passes call the functions of ops.h, attention.h, low_rank.h, frozen_matrix.h and routed_lora.h.
#pragma once

#include <torch/types.h>

#include <memory>
#include <span>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/backend/frozen_matrix.h"
#include "quiver/backend/low_rank.h"
#include "quiver/backend/ops.h"
#include "quiver/backend/routed_lora.h"

namespace quiver::backend {

using torch::Tensor;

/// What attention gets: q [Tq, H, D], k and v [Tk, H_kv, D], and attention_bias of the plan, or an undefined tensor.
struct AttentionInput {
  const Tensor &q, &k, &v;
  const AttentionPlan& plan;
  AttentionScores scores;
  Tensor bias = {};
};

/// One column. The functions get arguments that have been checked: their shapes fit, and they are contiguous, of one device and of the
/// dtypes that the headers of the operations name. Optional tensors (`onto`, `bias`) may be undefined. Most have the type of the public
/// function whose work they do.
///
/// A column starts as a copy of `reference_ops`, the definitions in plain torch operations, and replaces the functions that it computes in
/// another way.
struct Ops {
  const char* name;

  decltype(&backend::rms_norm) rms_norm;
  decltype(&backend::rms_norm_gradient) rms_norm_gradient;
  decltype(&backend::layer_norm) layer_norm;
  decltype(&backend::layer_norm_gradient) layer_norm_gradient;
  decltype(&backend::rotate_into) rotate_into;
  decltype(&backend::gated) gated;
  decltype(&backend::gated_gradient) gated_gradient;
  decltype(&backend::activated) activated;
  decltype(&backend::activated_gradient) activated_gradient;
  decltype(&backend::summarize_logits) summarize_logits;
  /// logits <- weight * (softmax(logits) - onehot(target)), given the log-sum-exp of each row.
  void (*cross_entropy_gradient)(Tensor& logits, const Tensor& log_sum_exp, const Tensor& target, const Tensor& weight);

  decltype(&backend::shrink) shrink;
  decltype(&backend::expand) expand;
  decltype(&backend::outer_product) outer_product;

  decltype(&backend::attention_bias) attention_bias;
  Attended (*attention)(const AttentionInput& in);
  AttentionGradient (*attention_gradient)(const Tensor& dout, const AttentionInput& in, const Attended& attended);

  std::shared_ptr<const MatrixLayout> (*lay_out)(const Tensor& weight);

  /// The layouts that route, shrink_routed and add_routed of this column read; undefined tensors where they read the rows or the factors.
  ScoreLayout (*pack_prototypes)(const Tensor& rows);
  ScoreLayout (*pack_vectors)(const Tensor& rows);
  RoutedLayout (*pack_adapters)(std::span<const LoraFactors> factors, torch::Device device);
  decltype(&backend::route) route;
  decltype(&backend::route_shortlisted) route_shortlisted;
  decltype(&backend::shrink_routed) shrink_routed;
  decltype(&backend::add_routed) add_routed;
};

/// The definitions: any device and dtype, autograd and all.
const Ops& reference_ops();

/// The column for tensors of `dtype` on `device`: on the CPU that of tensor::cpu_isa() for float32 and bfloat16, on other devices `cuda`
/// but for float64, else the reference. Decided once.
const Ops& ops(torch::Device device, torch::Dtype dtype);
inline const Ops& ops_of(const Tensor& t) { return ops(t.device(), t.scalar_type()); }

/// All columns that can compute `dtype` on `device` of this machine, whichever `ops` chooses: the reference first, then `cuda`, whose torch
/// operations any device has, and each instruction set of the CPU. For tests.
std::vector<const Ops*> all_ops(torch::Device device, torch::Dtype dtype);

}  // namespace quiver::backend
