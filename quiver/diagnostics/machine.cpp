#include "quiver/diagnostics/machine.h"

#include <ATen/Parallel.h>
#include <sys/utsname.h>
#include <torch/cuda.h>
#include <torch/utils.h>
#include <torch/version.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"

namespace quiver::diagnostics {

namespace {

/// What the driver calls the first GPU; "no" without one that libtorch can use.
std::string gpu_name() {
  if (!torch::cuda::is_available()) return "no";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    std::ifstream info(entry.path() / "information");
    for (std::string line; std::getline(info, line);) {
      if (line.starts_with("Model:")) return line.substr(line.find_first_not_of(" \t", std::string_view("Model:").size()));
    }
  }
  return "yes";
}

}  // namespace

nlohmann::json describe_machine() {
  std::string cpu = "unknown";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  utsname system{};
  uname(&system);
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  return {{"cpu", cpu},
          {"cores", std::to_string(std::thread::hardware_concurrency())},
          {"memory", format("{:.0f} GiB", memory / (1 << 30))},
          {"kernels", tensor::cpu_isa_name()},
          {"bf16 in hardware", __builtin_cpu_supports("avx512bf16") ? "yes" : "no"},
          {"threads", std::to_string(at::get_num_threads())},
          {"libtorch", TORCH_VERSION},
          {"gpu", gpu_name()},
          {"system", format("{} {}", system.sysname, system.release)},
          {"quiver", "0.1.0"}};
}

}  // namespace quiver::diagnostics
