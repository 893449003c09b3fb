// LoRA adapters on disk, as folders that PEFT reads and writes: adapter_config.json, adapter_model.safetensors,
// README.md. A fingerprint of the base goes into the safetensors metadata ("quiver.base_fingerprint"), since PEFT warns
// of unknown keys in its configuration.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/adapters/model_card.h"
#include "quiver/nn/linear.h"

namespace quiver::adapters {

inline constexpr const char* kPeftConfigFile = "adapter_config.json";
inline constexpr const char* kPeftTensorsFile = "adapter_model.safetensors";

/// Reads a PEFT adapter folder; the adapter is named after the folder. Rank and alpha of every pair are those that PEFT
/// computes from r, lora_alpha, rank_pattern, alpha_pattern and use_rslora. fan_in_fan_out needs no care: it concerns
/// the base weight only. Throws kNotFound; kBadFormat for a broken file or a factor without its partner; kUnsupported
/// for adapters that are not LoRAs or DoRAs (trained biases of the base, ...); kMismatch if the tensors contradict the configuration, so
/// that PEFT would refuse or ignore them.
LoraAdapter load_peft(const std::filesystem::path& folder);

/// The paths that an adapter folder's tensors adapt, from the head of the file alone. Throws kNotFound and kBadFormat as load_peft.
std::set<std::string> peft_paths(const std::filesystem::path& folder);

/// Writes the folder, all of it or nothing. An existing folder is replaced only with `force`, and only if it is an
/// adapter folder that holds no other files; an empty one is always filled. The same adapter gives the same bytes; what
/// load_peft read beyond the pairs (task_type, revision, ...) is written back. `facts` go into its README.md. Throws kUsage, kNotFound if
/// the parent folder does not exist, kIo, or kMismatch for an adapter without pairs.
void save_peft(const std::filesystem::path& folder, const LoraAdapter& adapter, bool force = false, const CardFacts& facts = {});

/// Throws kUsage unless save_peft may write to `folder`: there is nothing, an empty folder, or with `force` an adapter.
void check_may_write(const std::filesystem::path& folder, bool force);
/// Throws kUsage if the folder is there and holds a file that save_peft does not write.
void check_holds_only_peft(const std::filesystem::path& folder);

/// The three files alone, into an existing folder.
void write_peft_files(const std::filesystem::path& folder, const LoraAdapter& adapter, const CardFacts& facts = {});

/// Whether two names of a base surely mean different models, as far as names can tell: false if either tells nothing.
/// Only the last part of the path counts, in lower case, without ".gguf" and without what tells of packing at its end ("-q8_0",
/// ".Q4_K_M", "-bf16", "-GPTQ", "-unsloth-bnb-4bit"), so that a downloaded copy is the same model wherever it lies, and "Qwen2.5-0.5B" and
/// "Qwen2.5-0.5B-Instruct" are not. A folder of the Hugging Face cache ("models--org--name/snapshots/...") counts as
/// its model.
bool base_names_differ(const std::string& a, const std::string& b);

/// Input and output features of maps outside of the blocks, by path.
struct MapSize {
  std::int64_t in, out;
};
using MapSizes = std::map<std::string, MapSize>;

/// Throws kMismatch unless the adapter can be used on a model with these projections and `outer` maps: every pair has its projection
/// (else naming it and the nearest one) of the same d_in and d_out, and the fingerprints of the bases agree where both are
/// known. Where one is not, and the names differ (base_names_differ), shapes decide: returns a warning that names both. `allow_other_base`
/// leaves fingerprints and names out.
std::optional<std::string> check_fits(const LoraAdapter& adapter, const nn::LinearMap& projections, const std::string& base_name,
                                      const std::string& base_fingerprint, bool allow_other_base = false, const MapSizes& outer = {});

/// What was read of an adapter.
struct LoadReport {
  struct Projection {
    std::string path;
    std::int64_t rank;
    double alpha, scaling;
    std::string kind;   ///< "LoRA", "LoRA with bias", "DoRA"
    std::string dtype;  ///< of the factors, "Float"
  };
  std::vector<Projection> projections;
  std::vector<std::string> whole;   ///< weights that it brings in place of the base's, and rows of tokens
  std::vector<std::string> unused;  ///< what its configuration says in vain, a line each
};
LoadReport load_report(const LoraAdapter& adapter);

/// Warnings that PEFT gives, too, when it loads the adapter into a model with these projections: tensors that are missing for projections
/// which the configuration targets, keys of rank_pattern and alpha_pattern that match none of these, and exclude_modules that match no
/// module. As in PEFT, an entry of target_modules that matches nothing is no matter. Empty for an adapter made by Quiver.
std::vector<std::string> peft_warnings(const LoraAdapter& adapter, const nn::LinearMap& projections);

}  // namespace quiver::adapters
