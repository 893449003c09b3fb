#include "quiver/model/kv_cache.h"

#include <torch/utils.h>

namespace quiver::model {

KvCache make_kv_cache(std::int64_t num_layers, std::int64_t num_rows, std::int64_t num_kv_heads, std::int64_t head_dim,
                      tensor::Placement placement) {
  KvCache cache;
  const auto options = torch::TensorOptions().device(placement.device).dtype(placement.dtype);
  // Our kernel on the CPU reads only what a query sees. Attention under a mask multiplies what it does not see by 0, which a NaN survives.
  const bool has_mask = !placement.device.is_cpu() || placement.dtype == torch::kDouble;
  const auto make = [&] {
    const std::vector<std::int64_t> shape = {num_rows, num_kv_heads, head_dim};
    return has_mask ? torch::zeros(shape, options) : torch::empty(shape, options);
  };
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    cache.keys.push_back(make());
    cache.values.push_back(make());
  }
  return cache;
}

}  // namespace quiver::model
