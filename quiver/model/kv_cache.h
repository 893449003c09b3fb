// Keys and values that were computed before.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// Keys and values of rows computed before, per layer [capacity, H_kv, D]. Which rows a query sees is the plan's matter.
struct KvCache {
  std::vector<torch::Tensor> keys;
  std::vector<torch::Tensor> values;
};

/// An empty cache of `num_rows` rows. On the CPU the system gives its memory as rows are written, not before.
KvCache make_kv_cache(std::int64_t num_layers, std::int64_t num_rows, std::int64_t num_kv_heads, std::int64_t head_dim,
                      tensor::Placement placement);

}  // namespace quiver::model
