#include "quiver/diagnostics/machine.h"

#include <ATen/Parallel.h>
#include <sys/utsname.h>
#include <torch/cuda.h>
#include <torch/utils.h>
#include <torch/version.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"

namespace quiver::diagnostics {

namespace {

/// What follows `name` and a colon on the first line of a file that begins with it, or nothing.
std::optional<std::string> value_in(const std::filesystem::path& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (line.starts_with(name) && begin != std::string::npos) return line.substr(begin);
  }
  return std::nullopt;
}

/// What the driver calls the first GPU; "no" without one that libtorch can use.
std::string gpu_name() {
  if (!torch::cuda::is_available()) return "no";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    if (const auto model = value_in(entry.path() / "information", "Model:")) return *model;
  }
  return "yes";
}

}  // namespace

nlohmann::json describe_machine() {
  utsname system{};
  uname(&system);
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  return {{"cpu", value_in("/proc/cpuinfo", "model name").value_or("unknown")},
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
