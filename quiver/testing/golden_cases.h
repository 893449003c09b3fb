// Folders of golden values as the parameters of tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace quiver::testing {

/// Tiny models of every family (scripts/golden/make_families.py).
inline const std::filesystem::path kFamilies = "tests/golden/families";
/// The same as folder and as GGUF file (scripts/golden/make_gguf_models.py).
inline const std::filesystem::path kGgufModels = "tests/golden/gguf_models";

/// The names of the folders in `folder` that hold a file or folder `part`, in order.
inline std::vector<std::string> golden_cases(const std::filesystem::path& folder, const char* part = "config.json") {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (std::filesystem::exists(entry.path() / part)) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

/// The GGUF file of such a folder; the last of its pieces where it has several.
inline std::filesystem::path gguf_file(const std::filesystem::path& folder) {
  std::filesystem::path last;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") last = std::max(last, entry.path());
  }
  return last;
}

/// The name of the test of such a case. GoogleTest's names hold no '-'.
inline std::string case_name(const ::testing::TestParamInfo<std::string>& test) {
  auto name = test.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace quiver::testing
