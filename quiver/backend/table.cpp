#include "quiver/backend/table.h"

#include <torch/utils.h>

#include <array>

#include "quiver/backend/cpu/columns.h"
#include "quiver/backend/cuda/columns.h"
#include "quiver/backend/reference/reference.h"
#include "quiver/tensor/cpu.h"

namespace quiver::backend {
namespace {

using tensor::CpuIsa;

constexpr std::array kIsas = {CpuIsa::kV2, CpuIsa::kV3, CpuIsa::kV4, CpuIsa::kV4Bf16};
constexpr std::array kKernelDtypes = {torch::kFloat, torch::kBFloat16};

Ops cpu_column(CpuIsa isa, torch::Dtype dtype) {
  Ops column = reference::column();
  column.name = tensor::cpu_isa_name(isa);
  cpu::add_elementwise(column, isa, dtype);
  cpu::add_low_rank(column, isa, dtype);
  cpu::add_attention(column, isa, dtype);
  cpu::add_frozen_matrix(column, isa, dtype);
  cpu::add_routed_lora(column, isa, dtype);
  return column;
}

Ops cuda_column() {
  Ops column = reference::column();
  column.name = "cuda";
  cuda::add_attention(column);
  cuda::add_routed_lora(column);
  return column;
}

struct Table {
  Ops reference = reference::column();
  Ops cuda = cuda_column();
  std::array<std::array<Ops, kKernelDtypes.size()>, kIsas.size()> cpu{};
  Table() {
    for (std::size_t i = 0; i < kIsas.size(); ++i) {
      for (std::size_t d = 0; d < kKernelDtypes.size(); ++d) cpu[i][d] = cpu_column(kIsas[i], kKernelDtypes[d]);
    }
  }
};

const Table& table() {
  static const Table columns;
  return columns;
}

/// Its place among kKernelDtypes, or their number.
std::size_t kernel_dtype(torch::Dtype dtype) { return dtype == torch::kFloat ? 0 : dtype == torch::kBFloat16 ? 1 : kKernelDtypes.size(); }

}  // namespace

const Ops& reference_ops() { return table().reference; }

const Ops& ops(torch::Device device, torch::Dtype dtype) {
  if (!device.is_cpu()) return dtype == torch::kDouble ? table().reference : table().cuda;
  const auto d = kernel_dtype(dtype);
  return d == kKernelDtypes.size() ? table().reference : table().cpu[static_cast<std::size_t>(tensor::cpu_isa())][d];
}

std::vector<const Ops*> all_ops(torch::Device device, torch::Dtype dtype) {
  std::vector<const Ops*> columns = {&table().reference};
  if (dtype != torch::kDouble) columns.push_back(&table().cuda);
  const auto d = kernel_dtype(dtype);
  for (std::size_t i = 0; device.is_cpu() && d < kKernelDtypes.size() && i < kIsas.size(); ++i) {
    if (tensor::has_cpu_isa(kIsas[i])) columns.push_back(&table().cpu[i][d]);
  }
  return columns;
}

}  // namespace quiver::backend
