// The real base model, for tests that use it when it is there.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace quiver::testing {

/// The cached default base model, or an empty path.
inline std::filesystem::path smollm2_path() {
  const auto in = [](const char* variable, const char* below) -> std::filesystem::path {
    const char* value = std::getenv(variable);
    return value == nullptr ? std::filesystem::path() : std::filesystem::path(value) / below;
  };
  const char* name = "SmolLM2-135M-Instruct.Q4_1.gguf";
  for (const auto& folder : {in("QUIVER_CACHE", ""), in("XDG_CACHE_HOME", "quiver"), in("HOME", ".cache/quiver")}) {
    if (!folder.empty()) return std::filesystem::exists(folder / name) ? folder / name : std::filesystem::path();
  }
  return {};
}

}  // namespace quiver::testing
