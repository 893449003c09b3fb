// Models for the tests of this folder.
#pragma once

#include <filesystem>
#include <string>

#include "quiver/model/model.h"

namespace quiver::model {

/// One of tests/golden/model.
inline Model golden_model(const std::string& name = "llama-tied", torch::Dtype dtype = torch::kFloat) {
  return load_model(std::filesystem::path("tests/golden/model") / name, {torch::kCPU, dtype});
}

}  // namespace quiver::model
