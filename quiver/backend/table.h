// The table of operations: a column of functions for each device and instruction set. This header is for the columns and for tests;
// passes call the functions of ops.h, attention.h, low_rank.h, frozen_matrix.h and routed_lora.h.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/backend/frozen_matrix.h"
#include "quiver/backend/ops.h"
#include "quiver/backend/routed_lora.h"

namespace quiver::backend {

/// One column. The functions get arguments that have been checked: their shapes fit, and they are contiguous, of one device and of the
/// dtypes that the headers of the operations name. Optional tensors (`onto`, `bias`) may be undefined.
///
/// A column starts as a copy of `reference_ops`, the definitions in plain torch operations, and replaces the functions that it computes in
/// another way.
struct Ops {
  const char* name;

  Normed (*rms_norm)(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);
  torch::Tensor (*rms_norm_gradient)(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                     const torch::Tensor& inverse_rms, const torch::Tensor& onto);
  void (*rotate_into)(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, Rotation rotation,
                      torch::Tensor& out);
  torch::Tensor (*swiglu)(const torch::Tensor& gate, const torch::Tensor& up);
  SwigluGradient (*swiglu_gradient)(const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up);
  LogitsSummary (*summarize_logits)(const torch::Tensor& logits);
  /// logits <- weight * (softmax(logits) - onehot(target)), given the log-sum-exp of each row.
  void (*cross_entropy_gradient)(torch::Tensor& logits, const torch::Tensor& log_sum_exp, const torch::Tensor& target,
                                 const torch::Tensor& weight);

  torch::Tensor (*shrink)(const torch::Tensor& x, const torch::Tensor& factor);
  torch::Tensor (*expand)(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype);
  torch::Tensor (*outer_product)(const torch::Tensor& z, const torch::Tensor& x);

  torch::Tensor (*attention_bias)(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype);
  Attended (*attention)(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan, double scale,
                        const torch::Tensor& bias);
  AttentionGradient (*attention_gradient)(const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                                          const Attended& attended, const AttentionPlan& plan, double scale, const torch::Tensor& bias);

  std::shared_ptr<const MatrixLayout> (*lay_out)(torch::Tensor weight);

  /// The layouts that route, shrink_routed and add_routed of this column read; undefined tensors where they read the rows or the factors.
  torch::Tensor (*pack_prototypes)(const torch::Tensor& rows);
  torch::Tensor (*pack_vectors)(const torch::Tensor& rows);
  RoutedLayout (*pack_adapters)(std::span<const LoraFactors> factors, torch::Device device);
  Chosen (*route)(const ScoreVectors& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
                  const ScoreAdjustment& adjustment);
  torch::Tensor (*shrink_routed)(const ScoreVectors& vectors, const torch::Tensor& x, const torch::Tensor& index);
  void (*add_routed)(const RoutedAdapters& adapters, const torch::Tensor& x, const Chosen& chosen, Combine combine, torch::Tensor& y);
};

/// The definitions: any device and dtype, autograd and all.
const Ops& reference_ops();

/// The column for tensors of `dtype` on `device`: on the CPU that of tensor::cpu_isa() for float32 and bfloat16, on other devices `cuda`
/// but for float64, else the reference. Decided once.
const Ops& ops(torch::Device device, torch::Dtype dtype);
inline const Ops& ops_of(const torch::Tensor& t) { return ops(t.device(), t.scalar_type()); }

/// All columns that can compute `dtype` on `device` of this machine, whichever `ops` chooses: the reference first, then `cuda`, whose torch
/// operations any device has, and each instruction set of the CPU. For tests.
std::vector<const Ops*> all_ops(torch::Device device, torch::Dtype dtype);

}  // namespace quiver::backend
