// Which instruction set the CPU kernels run on.
#pragma once

namespace quiver::tensor {

/// x86-64 levels: v2 (SSE4.2), v3 (AVX2, FMA), v4 (AVX-512), and v4 with products of bfloat16.
enum class CpuIsa { kV2, kV3, kV4, kV4Bf16 };

/// The best level of this CPU, or what the environment variable QUIVER_ISA (v2, v3, v4) lowers it to. Decided once.
CpuIsa cpu_isa();
const char* cpu_isa_name();

}  // namespace quiver::tensor
