// What GPUs compute in another way than the definitions, by libtorch's operations. Each function sets its entries of the column.
#pragma once

#include "quiver/backend/table.h"

namespace quiver::backend::cuda {

/// libtorch's scaled_dot_product_attention under a bias.
void add_attention(Ops& column);
/// All adapters of a projection in two products.
void add_routed_lora(Ops& column);

}  // namespace quiver::backend::cuda
