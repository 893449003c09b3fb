#include "quiver/backend/low_rank.h"

#include <torch/utils.h>

#include <vector>

#include "quiver/backend/cpu/low_rank_isa.h"
#include "quiver/backend/table.h"
#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {

using tensor::compute_dtype;
using tensor::expect_layout;

Tensor shrink(const Tensor& x, const Tensor& factor) {
  const StageTimer timer(Stage::kLora);
  const auto rows = x.contiguous(), f = factor.contiguous();
  const auto dtype = x.scalar_type();
  expect_layout(rows, "x of shrink", x.device(), dtype, {x.size(0), x.size(1)});
  expect_layout(f, "factor of shrink", x.device(), compute_dtype(dtype), {factor.size(0), x.size(1)});
  return ops_of(x).shrink(rows, f);
}

Tensor expand(const Tensor& z, const Tensor& factor, const Tensor& onto, torch::Dtype dtype) {
  const StageTimer timer(Stage::kLora);
  const auto f = factor.contiguous(), base = onto.defined() ? onto.contiguous() : onto;
  expect_layout(z, "z of expand", z.device(), compute_dtype(dtype), {z.size(0), factor.size(0)});
  expect_layout(f, "factor of expand", z.device(), compute_dtype(dtype), {factor.size(0), factor.size(1)});
  if (base.defined()) expect_layout(base, "onto of expand", z.device(), dtype, {z.size(0), factor.size(1)});
  return ops(z.device(), dtype).expand(z, f, base, dtype);
}

void add_low_rank(const Tensor& x, std::int64_t begin, std::int64_t end, const Tensor& a, const Tensor& b, const Tensor& y) {
  const StageTimer timer(Stage::kLora);
  const auto count = end - begin, d_in = x.size(1), rank = a.size(0), d_out = b.size(1);
  if (begin < 0 || count < 0 || end > x.size(0)) fail(ErrorKind::kInternal, "rows {} to {} of {}", begin, end, x.size(0));
  const auto* rows = tensor::raw_data<float>(x, "x of add_low_rank", {x.size(0), d_in}) + begin * d_in;
  const auto *down = tensor::raw_data<float>(a, "a of add_low_rank", {rank, d_in}),
             *up = tensor::raw_data<float>(b, "b of add_low_rank", {rank, d_out});
  auto* out = tensor::mutable_raw_data<float>(y, "y of add_low_rank", {x.size(0), d_out}) + begin * d_out;
  std::vector<float> z(static_cast<std::size_t>(count * rank));
  QUIVER_ON_ISA(tensor::cpu_isa(), kernel, shrink<float>, count, d_in, rank, rows, down, z.data());
  QUIVER_ON_ISA(tensor::cpu_isa(), kernel, expand<float>, count, d_out, rank, z.data(), up, out, out);
}

Tensor outer_product(const Tensor& z, const Tensor& x) {
  const StageTimer timer(Stage::kLora);
  const auto rows = x.contiguous();
  expect_layout(z, "z of outer_product", x.device(), compute_dtype(x.scalar_type()), {x.size(0), z.size(1)});
  expect_layout(rows, "x of outer_product", x.device(), x.scalar_type(), {x.size(0), x.size(1)});
  return ops_of(x).outer_product(z, rows);
}

}  // namespace quiver::backend
