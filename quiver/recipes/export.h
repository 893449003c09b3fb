// What others load: an adapter as a PEFT folder or a GGUF file, or a model with the adapter in its weights.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/adapters/model_card.h"
#include "quiver/io/gguf.h"
#include "quiver/library/library.h"
#include "quiver/methods/base_model.h"

namespace quiver::recipes {

enum class ExportForm {
  kPeft,         ///< an adapter folder of PEFT
  kGgufLora,     ///< an adapter file of llama.cpp
  kHuggingFace,  ///< a model folder of transformers, the adapter merged
  kGguf,         ///< a model file of llama.cpp, the adapter merged
};

struct ExportOptions {
  ExportForm form = ExportForm::kPeft;
  /// Of the numbers: F32, F16, BF16, and Q8_0 for kGguf. None: those of the base's configuration for kHuggingFace (BF16 without one), F16
  /// for kGguf, F32 for adapters.
  std::optional<io::GgufType> type;
  bool force = false;
};

/// Tasks and losses of the adapters `names` of a library. Losses are those of a single adapter.
adapters::CardFacts card_facts(const library::Library& library, const std::vector<std::string>& names);

/// Throws what export_model and export_adapter would throw of `path` and the options, before the work.
void check_export(const std::filesystem::path& path, const ExportOptions& options);

/// Writes the adapter as kPeft or kGgufLora. A file of llama.cpp has one alpha, so factors B of other scalings are multiplied by what
/// they lack. Throws kUnsupported for a DoRA in GGUF.
nlohmann::json export_adapter(const methods::BaseModel& base, const adapters::LoraAdapter& adapter, const adapters::CardFacts& facts,
                              const ExportOptions& options, const std::filesystem::path& path);

/// Writes the base as kHuggingFace or kGguf, with the adapter merged into its weights unless that is null: W + s B A in float32, rounded
/// once (adapters::merged_weight). Throws kMismatch unless the adapter fits the base.
nlohmann::json export_model(const methods::BaseModel& base, const adapters::LoraAdapter* adapter, const adapters::CardFacts& facts,
                            const ExportOptions& options, const std::filesystem::path& path);

}  // namespace quiver::recipes
