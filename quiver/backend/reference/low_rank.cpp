#include <torch/utils.h>

#include "quiver/backend/reference/columns.h"

namespace quiver::backend::reference {

namespace {

Tensor shrink(const Tensor& x, const Tensor& factor) { return x.to(factor.scalar_type()).mm(factor.t()); }

Tensor expand(const Tensor& z, const Tensor& factor, const Tensor& onto, torch::Dtype dtype) {
  const auto update = z.mm(factor);
  return (onto.defined() ? onto.to(update.scalar_type()) + update : update).to(dtype);
}

Tensor outer_product(const Tensor& z, const Tensor& x) { return z.t().mm(x.to(z.scalar_type())); }

}  // namespace

void add_low_rank(Ops& column) {
  column.shrink = shrink;
  column.expand = expand;
  column.outer_product = outer_product;
}

}  // namespace quiver::backend::reference
