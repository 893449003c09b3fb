// The CPU's columns: one for each instruction set, in float32 and bfloat16. Each function sets its entries of a column.
#pragma once

#include <torch/types.h>

#include "quiver/backend/cpu/bf16.h"
#include "quiver/backend/table.h"
#include "quiver/tensor/cpu.h"

namespace quiver::backend::cpu {

void add_elementwise(Ops& column, tensor::CpuIsa isa, torch::Dtype dtype);
void add_low_rank(Ops& column, tensor::CpuIsa isa, torch::Dtype dtype);
void add_attention(Ops& column, tensor::CpuIsa isa, torch::Dtype dtype);
void add_frozen_matrix(Ops& column, tensor::CpuIsa isa, torch::Dtype dtype);
void add_routed_lora(Ops& column, tensor::CpuIsa isa, torch::Dtype dtype);

/// Calls f<isa, element type of dtype>(), dtype being float32 or bfloat16.
template <typename F>
void with_column(tensor::CpuIsa isa, torch::Dtype dtype, F f) {
  using tensor::CpuIsa;
  const auto with_element = [&]<CpuIsa kIsa>() {
    if (dtype == torch::kFloat) {
      f.template operator()<kIsa, float>();
    } else {
      f.template operator()<kIsa, kernel::Bf16>();
    }
  };
  switch (isa) {
    case CpuIsa::kV2: return with_element.template operator()<CpuIsa::kV2>();
    case CpuIsa::kV3: return with_element.template operator()<CpuIsa::kV3>();
    case CpuIsa::kV4: return with_element.template operator()<CpuIsa::kV4>();
    case CpuIsa::kV4Bf16: return with_element.template operator()<CpuIsa::kV4Bf16>();
  }
}

}  // namespace quiver::backend::cpu
