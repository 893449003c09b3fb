#include "quiver/lora/low_rank.h"

#include <torch/utils.h>

#include "quiver/base/profile.h"
#include "quiver/lora/kernels/low_rank_isa.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::lora {
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
  auto z = torch::empty({x.size(0), factor.size(0)}, torch::kFloat);
  with_element(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, shrink<T>, rows.size(0), rows.size(1), f.size(0), raw_data<T>(rows), f.const_data_ptr<float>(),
                  mutable_raw_data<float>(z));
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
  auto y = torch::empty({z.size(0), factor.size(1)}, z.options().dtype(dtype));
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, expand<T>, z.size(0), f.size(1), f.size(0), z.const_data_ptr<float>(), f.const_data_ptr<float>(),
                  base.defined() ? raw_data<T>(base) : nullptr, mutable_raw_data<T>(y));
  });
  return y;
}

torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x) {
  const StageTimer timer(Stage::kLora);
  if (!has_kernel(x, x.scalar_type())) return z.t().mm(x.to(z.scalar_type()));
  const auto rows = x.contiguous();
  auto out = torch::empty({z.size(1), x.size(1)}, torch::kFloat);
  with_element(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, outer<T>, rows.size(0), rows.size(1), z.size(1), z.const_data_ptr<float>(), raw_data<T>(rows),
                  mutable_raw_data<float>(out));
  });
  return out;
}

}  // namespace quiver::lora
