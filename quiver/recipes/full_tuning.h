// Full fine-tuning: a model folder instead of an adapter.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "quiver/recipes/training_run.h"

namespace quiver::recipes {

/// Trains all linear maps of the blocks on the joint examples of setup.tasks (train::FullWeights) and writes a Hugging Face folder:
/// config.json, model.safetensors in the dtype that the base computes in, and the base's tokenizer, as its files or, for a base from a
/// GGUF file, as tokenizer.gguf (text/tokenizer.h). Settings of LoRAs are not read. Resumable by <folder>.parts, whose checkpoints are
/// 12 bytes a number. Returns {"path", "parameters", "training"}. Throws kUsage if the folder is there, unless setup.force.
nlohmann::json full_fine_tuning(const methods::BaseModel& base, const TrainingSetup& setup, const std::filesystem::path& folder,
                                Progress& progress);

}  // namespace quiver::recipes
