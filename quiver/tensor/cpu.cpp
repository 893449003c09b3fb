#include "quiver/tensor/cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "quiver/base/error.h"

namespace quiver::tensor {
namespace {

CpuIsa detect() {
  CpuIsa best = CpuIsa::kV2;
  for (const auto isa : {CpuIsa::kV3, CpuIsa::kV4, CpuIsa::kV4Bf16}) {
    if (has_cpu_isa(isa)) best = isa;
  }
  const char* given = std::getenv("QUIVER_ISA");
  const std::string_view wanted = given == nullptr ? "" : given;
  if (wanted.empty()) return best;
  if (wanted == "v2") return CpuIsa::kV2;
  if (wanted == "v3") return std::min(best, CpuIsa::kV3);
  if (wanted == "v4") return std::min(best, CpuIsa::kV4);
  fail(ErrorKind::kUsage, "the environment variable QUIVER_ISA is '{}'; expected v2, v3 or v4", wanted);
}

/// Asks Linux for the registers of AMX (its Documentation/arch/x86/xstate.rst). A system that does not know the call says no.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool cpu_has_tiles() {
  constexpr unsigned kTiles = 1U << 24, kInt8 = 1U << 25;  // CPUID, leaf 7, EDX
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTiles) != 0 && (d & kInt8) != 0;
}

}  // namespace

bool has_cpu_isa(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kV2: return true;
    case CpuIsa::kV3: return __builtin_cpu_supports("x86-64-v3") != 0;
    case CpuIsa::kV4: return __builtin_cpu_supports("x86-64-v4") != 0;
    // Every CPU with AVX-512 BF16 has VNNI (Cooper Lake, Sapphire Rapids, Zen 4 and their successors). A virtual machine may hide it.
    case CpuIsa::kV4Bf16:
      return has_cpu_isa(CpuIsa::kV4) && __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
  }
  return false;
}

CpuIsa cpu_isa() {
  static const CpuIsa isa = detect();
  return isa;
}

bool has_amx() {
  static const bool has = cpu_isa() == CpuIsa::kV4Bf16 && cpu_has_tiles() && may_use_tiles();
  return has;
}

const char* cpu_isa_name(CpuIsa isa) {
  constexpr const char* kNames[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4 with bfloat16"};
  return kNames[static_cast<std::size_t>(isa)];
}

}  // namespace quiver::tensor
