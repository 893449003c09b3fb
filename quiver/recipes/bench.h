// What this machine can do at most, to hold figures against.
#pragma once

#include <nlohmann/json.hpp>

#include "quiver/tensor/tensor.h"

namespace quiver::recipes {

/// The rate of plain matrix products in the placement's dtype over the shapes of a base model's linear maps:
/// {"shapes": [{"m","n","k","gflops"}], "gflops"}: medians of repeated runs; the last over all shapes together.
nlohmann::json bench_gemm(tensor::Placement placement, std::int64_t rows);

}  // namespace quiver::recipes
