#include <torch/utils.h>

#include "quiver/backend/cpu/columns.h"
#include "quiver/backend/cpu/low_rank_isa.h"
#include "quiver/tensor/raw_data.h"

// One pass over memory each, on the calling thread, without the overhead of general products.
namespace quiver::backend::cpu {
namespace {

using tensor::CpuIsa;
using tensor::mutable_trusted_data;
using tensor::trusted_data;

template <CpuIsa kIsa, typename T>
Tensor shrink(const Tensor& x, const Tensor& factor) {
  auto z = torch::empty({x.size(0), factor.size(0)}, torch::kFloat);
  QUIVER_ON_ISA(kIsa, kernel, shrink<T>, x.size(0), x.size(1), factor.size(0), trusted_data<T>(x), trusted_data<float>(factor),
                mutable_trusted_data<float>(z));
  return z;
}

template <CpuIsa kIsa, typename T>
Tensor expand(const Tensor& z, const Tensor& factor, const Tensor& onto, torch::Dtype dtype) {
  auto y = torch::empty({z.size(0), factor.size(1)}, z.options().dtype(dtype));
  QUIVER_ON_ISA(kIsa, kernel, expand<T>, z.size(0), factor.size(1), factor.size(0), trusted_data<float>(z), trusted_data<float>(factor),
                onto.defined() ? trusted_data<T>(onto) : nullptr, mutable_trusted_data<T>(y));
  return y;
}

template <CpuIsa kIsa, typename T>
Tensor outer_product(const Tensor& z, const Tensor& x) {
  auto out = torch::empty({z.size(1), x.size(1)}, torch::kFloat);
  QUIVER_ON_ISA(kIsa, kernel, outer<T>, x.size(0), x.size(1), z.size(1), trusted_data<float>(z), trusted_data<T>(x),
                mutable_trusted_data<float>(out));
  return out;
}

}  // namespace

void add_low_rank(Ops& column, CpuIsa isa, torch::Dtype dtype) {
  with_column(isa, dtype, [&]<CpuIsa kIsa, typename T>() {
    column.shrink = shrink<kIsa, T>;
    column.expand = expand<kIsa, T>;
    column.outer_product = outer_product<kIsa, T>;
  });
}

}  // namespace quiver::backend::cpu
