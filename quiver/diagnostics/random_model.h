// Models of random weights, for measurements of architectures whose checkpoints are not at hand.
#pragma once

#include <cstdint>
#include <filesystem>

#include "quiver/model/model.h"

namespace quiver::diagnostics {

/// A model that the description in `config`, a Hugging Face config.json, fits. Matrices are uniform in [-0.03, 0.03), norm weights in
/// [0.9, 1.1), biases in [-0.1, 0.1). Throws as model::spec_from_json.
model::Model random_model(const std::filesystem::path& config, tensor::Placement placement, std::uint64_t seed);

}  // namespace quiver::diagnostics
