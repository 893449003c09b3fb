#include "quiver/base/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "quiver/base/control_group.h"

namespace quiver {
namespace {

/// The number after `name` in a file of words; the first number for an empty name.
std::optional<std::int64_t> read_number(const std::filesystem::path& path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  while (!name.empty() && word != name) {
    if (!(file >> word)) return {};
  }
  std::int64_t number = 0;
  if (!(file >> number)) return {};  // "max" is no number: no limit
  return number;
}

/// Bytes that a control group leaves; nothing without a limit. Cached files count as used, but are given back when memory runs short.
std::optional<std::int64_t> left_in(const std::filesystem::path& group) {
  auto limit = read_number(group / "memory.max", ""), used = read_number(group / "memory.current", "");
  auto files = read_number(group / "memory.stat", "inactive_file");
  if (!limit || !used) {  // version 1
    limit = read_number(group / "memory.limit_in_bytes", "");
    used = read_number(group / "memory.usage_in_bytes", "");
    files = read_number(group / "memory.stat", "total_inactive_file");
  }
  if (!limit || !used) return {};
  return std::max<std::int64_t>(*limit - *used + files.value_or(0), 0);
}

}  // namespace

std::optional<std::int64_t> available_memory(const std::filesystem::path& root) {
  std::optional<std::int64_t> available;
  if (const auto kib = read_number(root / "proc/meminfo", "MemAvailable:")) available = *kib * 1024;
  for (const auto& group : control_group_folders("memory", root)) {
    const auto left = left_in(group);
    if (left) available = std::min(available.value_or(*left), *left);
  }
  return available;
}

std::optional<std::int64_t> peak_memory() {
  const auto kib = read_number("/proc/self/status", "VmHWM:");
  if (!kib) return {};
  return *kib * 1024;
}

}  // namespace quiver
