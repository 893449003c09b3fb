#include "quiver/backend/low_rank.h"

#include <torch/utils.h>

#include "quiver/backend/cpu/low_rank_isa.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend {
namespace {

using kernel::Bf16;
using tensor::mutable_raw_data;
using tensor::raw_data;

bool has_kernel(const torch::Tensor& t, torch::Dtype dtype) { return t.is_cpu() && (dtype == torch::kFloat || dtype == torch::kBFloat16); }

/// Calls f(element) with an element of the type `dtype`.
template <typename F>
void with_element(torch::Dtype dtype, F f) {
  if (dtype == torch::kFloat) return f(float{});
  f(Bf16{});
}

}  // namespace

torch::Tensor shrink(const torch::Tensor& x, const torch::Tensor& factor) {
  const StageTimer timer(Stage::kLora);
  if (!has_kernel(x, x.scalar_type())) return x.to(factor.scalar_type()).mm(factor.t());
  const auto rows = x.contiguous(), f = factor.contiguous();
  const auto count = x.size(0), dim = x.size(1), rank = factor.size(0);
  auto z = torch::empty({count, rank}, torch::kFloat);
  with_element(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, shrink<T>, count, dim, rank, raw_data<T>(rows, "x of shrink", {count, dim}),
                  raw_data<float>(f, "factor of shrink", {rank, dim}), mutable_raw_data<float>(z, "result of shrink", {count, rank}));
  });
  return z;
}

torch::Tensor expand(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype) {
  const StageTimer timer(Stage::kLora);
  if (!has_kernel(z, dtype)) {
    const auto update = z.mm(factor);
    return (onto.defined() ? onto.to(update.scalar_type()) + update : update).to(dtype);
  }
  const auto f = factor.contiguous(), base = onto.defined() ? onto.contiguous() : onto;
  const auto count = z.size(0), dim = factor.size(1), rank = factor.size(0);
  auto y = torch::empty({count, dim}, z.options().dtype(dtype));
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, expand<T>, count, dim, rank, raw_data<float>(z, "z of expand", {count, rank}),
                  raw_data<float>(f, "factor of expand", {rank, dim}),
                  base.defined() ? raw_data<T>(base, "onto of expand", {count, dim}) : nullptr,
                  mutable_raw_data<T>(y, "result of expand", {count, dim}));
  });
  return y;
}

torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x) {
  const StageTimer timer(Stage::kLora);
  if (!has_kernel(x, x.scalar_type())) return z.t().mm(x.to(z.scalar_type()));
  const auto rows = x.contiguous();
  const auto count = x.size(0), dim = x.size(1), rank = z.size(1);
  auto out = torch::empty({rank, dim}, torch::kFloat);
  with_element(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, outer<T>, count, dim, rank, raw_data<float>(z, "z of outer_product", {count, rank}),
                  raw_data<T>(rows, "x of outer_product", {count, dim}),
                  mutable_raw_data<float>(out, "result of outer_product", {rank, dim}));
  });
  return out;
}

}  // namespace quiver::backend
