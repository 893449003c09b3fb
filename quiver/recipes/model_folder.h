// Whole models as Hugging Face folders: what full fine-tuning and `quiver export` write.
#pragma once

#include <filesystem>
#include <string>

#include "quiver/methods/base_model.h"
#include "quiver/tensor/tensor.h"

namespace quiver::recipes {

/// Throws kUsage unless a model may be written to `folder`: there is nothing, an empty folder, or with `force` a model that
/// write_model_folder made and that holds no other files.
void check_may_write_model(const std::filesystem::path& folder, bool force);

/// All weights of the base by the names of its family's safetensors files, as stored there, in `dtype`. Those of `changed`, by
/// path ("layers.0.mlp.up_proj.weight") and [d_out, d_in] of linear maps, take the place of the base's.
tensor::TensorMap stored_weights(const methods::BaseModel& base, const tensor::TensorMap& changed, torch::Dtype dtype);

/// Writes config.json, whose dtype is that of the weights, model.safetensors, `card` as README.md unless it is empty, and the base's
/// tokenizer: its files or, for a base from a GGUF file, tokenizer.gguf (text/tokenizer.h). All of it or nothing. Errors as
/// check_may_write_model; kUnsupported for a GGUF base that no config.json describes (model::spec_to_json).
void write_model_folder(const std::filesystem::path& folder, const methods::BaseModel& base, const tensor::TensorMap& weights,
                        const std::string& card, bool force);

}  // namespace quiver::recipes
