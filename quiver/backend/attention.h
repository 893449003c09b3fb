// Attention over a forest of token segments: only here does the shape of a batch matter.
#pragma once

#include <torch/types.h>

#include <memory>

#include "quiver/backend/attention_plan.h"
#include "quiver/forest/token_forest.h"

namespace quiver::backend {

/// The boolean mask [num_queries, num_keys], true where a query sees a key. For the definition and for tests.
torch::Tensor dense_mask(const AttentionPlan& plan);

using AttentionPlanPtr = std::shared_ptr<const AttentionPlan>;

/// Every row of the forest attends to its path; keys are the rows themselves.
AttentionPlanPtr plan_forest(const forest::TokenForest& forest);

/// The plan in which every query sees the last `window` keys of its path alone, 0 being all. The same pointer if no path is longer. A
/// plan's blocks that go key by key become one for every query.
AttentionPlanPtr windowed(const AttentionPlanPtr& plan, std::int64_t window);

/// The result of attention, [Tq, H, D], and what its gradient needs beside it: the log of each query's softmax denominator, [H, Tq]
/// float32. lse is undefined where the gradient does without, and not set for blocks that go key by key.
struct Attended {
  torch::Tensor out, lse;
};
/// What becomes of the scores s = q k^T: scale s, or cap tanh(scale s / cap).
struct AttentionScores {
  double scale = 1;
  double cap = 0;  ///< 0: none
};
/// softmax(scores of q k^T restricted to the plan) v, with grouped heads: query head h reads key head h / (H / H_kv).
///
/// Shapes: q [Tq, H, D], k and v [Tk, H_kv, D]. Dtype of q; scores and softmax in float32 (float64 for float64 inputs). `bias` is
/// attention_bias of the plan, made once for all layers; undefined, it is made where it is needed.
/// On the CPU in float32 and bfloat16 a kernel that skips what is not visible runs, on all threads, with the same result for any number
/// of them. On a GPU libtorch's attention runs under a mask, and in float64 the definition, with a dense mask and O(Tq Tk) memory.
Attended forest_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlanPtr& plan,
                          AttentionScores scores, const torch::Tensor& bias = {});
/// The gradients of q, k and v given that of the result.
struct AttentionGradient {
  torch::Tensor q, k, v;
};
AttentionGradient forest_attention_gradient(const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k,
                                            const torch::Tensor& v, const Attended& attended, const AttentionPlanPtr& plan,
                                            AttentionScores scores, const torch::Tensor& bias = {});

/// What is added to the scores where libtorch's attention runs instead of our kernel, on GPUs: [num_queries, num_keys], 0 where a query
/// sees a key and -infinity elsewhere. Undefined on the CPU, and for float64.
torch::Tensor attention_bias(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype);

}  // namespace quiver::backend
