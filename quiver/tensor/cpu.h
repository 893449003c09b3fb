// Which instruction set the CPU kernels run on.
#pragma once

namespace quiver::tensor {

/// x86-64 levels: v2 (SSE4.2), v3 (AVX2, FMA), v4 (AVX-512), and v4 with products of bfloat16 (AVX-512 BF16) and of integers (VNNI).
enum class CpuIsa { kV2, kV3, kV4, kV4Bf16 };

/// Whether this CPU has it, whatever QUIVER_ISA says.
bool has_cpu_isa(CpuIsa isa);
/// The best level of this CPU, or what the environment variable QUIVER_ISA (v2, v3, v4) lowers it to. Decided once. Throws kUsage for
/// another value of the variable.
CpuIsa cpu_isa();
/// Whether kernels may use AMX's tiles of int8: the CPU has them, the system lets this process use them, which is asked for once, and
/// QUIVER_ISA lowers nothing.
bool has_amx();
const char* cpu_isa_name(CpuIsa isa = cpu_isa());

/// Calls `function` of the namespace of `isa` in `kernels`: QUIVER_ON_ISA(isa, kernel, name<T>, arguments...);
/// The CPU must have `isa`.
#define QUIVER_ON_ISA(isa, kernels, function, ...)                                         \
  do {                                                                                     \
    switch (isa) {                                                                         \
      case quiver::tensor::CpuIsa::kV4Bf16: kernels::v4bf16::function(__VA_ARGS__); break; \
      case quiver::tensor::CpuIsa::kV4: kernels::v4::function(__VA_ARGS__); break;         \
      case quiver::tensor::CpuIsa::kV3: kernels::v3::function(__VA_ARGS__); break;         \
      case quiver::tensor::CpuIsa::kV2: kernels::v2::function(__VA_ARGS__); break;         \
    }                                                                                      \
  } while (false)

}  // namespace quiver::tensor
