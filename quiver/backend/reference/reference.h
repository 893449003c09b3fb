// The definitions of all operations in torch operations: any device, any floating dtype, differentiable by autograd.
#pragma once

#include "quiver/backend/table.h"

namespace quiver::backend::reference {

Ops column();

/// The definition, for columns whose kernels lack a case.
Attended attention(const AttentionInput& in);

/// The gradient of an attention that is made of torch operations: computes it once more, under autograd.
AttentionGradient gradient_by_autograd(decltype(Ops::attention) attention, const Tensor& dout, const AttentionInput& in);

}  // namespace quiver::backend::reference
