// The tensors of a PEFT file, sorted by what they are.
#pragma once

#include <map>
#include <string>

#include "quiver/adapters/peft_config.h"
#include "quiver/io/safetensors.h"

namespace quiver::adapters {

/// The factors of a module, as found in the file, with a DoRA's magnitude or lora_B's bias.
struct FactorEntries {
  const io::TensorEntry* lora_a = nullptr;
  const io::TensorEntry* lora_b = nullptr;
  const io::TensorEntry* magnitude = nullptr;
  const io::TensorEntry* bias = nullptr;
  bool is_embedding = false;   ///< lora_embedding_A and _B
  bool shares_lora_a = false;  ///< lora_a is that of another module
};

/// A whole weight in place of the base's.
struct WholeEntry {
  const io::TensorEntry* entry = nullptr;
  bool is_of_tied_head = false;  ///< PEFT loads it into the base itself, so that a tied head takes it too
};

/// By the modules' names in transformers.
struct PeftTensors {
  std::map<std::string, FactorEntries> factors;
  std::map<std::string, WholeEntry> whole;               ///< by module and ".weight" or ".bias"
  std::map<std::string, const io::TensorEntry*> tokens;  ///< rows of single tokens (trainable_token_indices)
};

/// Throws kBadFormat for a broken set, kUnsupported for tensors that are neither factors nor weights that the configuration saves.
///
/// A module of q, k, v without a lora_A shares that of its siblings: the one that the file's metadata names, as safetensors' save_model
/// writes tied tensors, or the only one that there is.
PeftTensors sort_tensors(const io::SafetensorsView& view, const PeftConfig& config);

/// Whether the last name is one of those that embeddings have.
bool is_embedding(std::string_view module);

}  // namespace quiver::adapters
