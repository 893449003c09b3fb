#include <torch/utils.h>

#include "quiver/backend/reference/reference.h"

namespace quiver::backend::reference {

torch::Tensor shrink(const torch::Tensor& x, const torch::Tensor& factor) { return x.to(factor.scalar_type()).mm(factor.t()); }

torch::Tensor expand(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype) {
  const auto update = z.mm(factor);
  return (onto.defined() ? onto.to(update.scalar_type()) + update : update).to(dtype);
}

torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x) { return z.t().mm(x.to(z.scalar_type())); }

}  // namespace quiver::backend::reference
