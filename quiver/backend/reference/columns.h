// The definitions of all operations in torch operations: any device, any floating dtype, differentiable by autograd. Each function sets
// its entries of the column.
#pragma once

#include "quiver/backend/table.h"

namespace quiver::backend::reference {

void add_elementwise(Ops& column);
void add_low_rank(Ops& column);
void add_attention(Ops& column);
void add_frozen_matrix(Ops& column);
void add_routed_lora(Ops& column);

/// The gradient of an attention that is made of torch operations: computes it once more, under autograd.
AttentionGradient gradient_by_autograd(decltype(Ops::attention) attention, const Tensor& dout, const AttentionInput& in);

}  // namespace quiver::backend::reference
