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

/// The names of the folders in `folder` that hold a file or folder `part`, in order.
inline std::vector<std::string> golden_cases(const std::filesystem::path& folder, const char* part = "config.json") {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (std::filesystem::exists(entry.path() / part)) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

/// The name of the test of such a case. GoogleTest's names hold no '-'.
inline std::string case_name(const ::testing::TestParamInfo<std::string>& test) {
  auto name = test.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace quiver::testing
