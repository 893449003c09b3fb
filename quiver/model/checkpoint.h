// The parts of load_model.
#pragma once

#include <torch/types.h>

#include <filesystem>

#include "quiver/model/gguf_slots.h"
#include "quiver/model/model.h"

namespace quiver::model {

/// load_model of a GGUF file, or of any piece of a model in several.
Model load_gguf(const std::filesystem::path& path, tensor::Placement placement, const LoadOptions& options);

/// Throws kUsage: the model holds no weights in blocks that could stay so.
[[noreturn]] void refuse_quantized(const std::filesystem::path& path);

/// A weight or bias [rows, ...] of a GGUF file, with its rows in the order of models. Throws kBadFormat, beginning with `origin`, for rows
/// that are no whole heads.
torch::Tensor from_gguf_rows(const GgufSlot& slot, const torch::Tensor& values, const std::string& origin);
/// The inverse.
torch::Tensor to_gguf_rows(const GgufSlot& slot, const torch::Tensor& values, const std::string& origin);

/// Drops the learned positions beyond the context of `spec`.
void limit_positions(const ModelSpec& spec, tensor::TensorMap& weights);

}  // namespace quiver::model
