#include "quiver/recipes/model_folder.h"

#include <torch/utils.h>

#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/model/families.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWrittenBy = "quiver.written_by";  // in the weights' metadata
constexpr const char* kWeightsFile = "model.safetensors";
constexpr const char* kConfigFile = "config.json";
constexpr const char* kCardFile = "README.md";
constexpr const char* kTextFiles[] = {"generation_config.json",  "tokenizer.json",      "tokenizer_config.json",
                                      "special_tokens_map.json", "chat_template.jinja", text::kGgufTokenizerFile};

constexpr const char* kGgufTokenizerNote =
    "\nThe tokenizer is that of a GGUF file:\n\n```python\nfrom transformers import AutoTokenizer\n\n"
    "tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=\"tokenizer.gguf\")\n```\n";

std::vector<std::string_view> all_files() {
  std::vector<std::string_view> files(std::begin(kTextFiles), std::end(kTextFiles));
  files.insert(files.end(), {kConfigFile, kWeightsFile, kCardFile});
  return files;
}

bool is_ours(const fs::path& folder) {
  std::error_code error;
  const auto weights = folder / kWeightsFile;
  if (!fs::is_directory(folder, error) || !fs::exists(weights, error)) return false;
  const io::MappedFile file(weights);
  return io::SafetensorsView::parse(file.bytes(), weights.string()).metadata().contains(kWrittenBy);
}

/// The context is that of the file, unless positions are learned: then the base has as many as it was loaded with.
nlohmann::json config_of_gguf(const methods::BaseModel& base) {
  auto spec = model::load_spec(base.path);
  if (spec.edges.has_positions) spec.max_positions = base.lm.spec().max_positions;
  auto config = model::spec_to_json(spec);
  const auto bos = base.tokenizer.bos_id();
  config["bos_token_id"] = bos ? nlohmann::json(*bos) : nlohmann::json();
  const auto eos = base.tokenizer.eos_ids();
  config["eos_token_id"] = eos.size() == 1 ? nlohmann::json(eos[0]) : eos.empty() ? nlohmann::json() : nlohmann::json(eos);
  return config;
}

/// The base's configuration, of weights in `dtype`.
std::string config_text(const methods::BaseModel& base, torch::Dtype dtype, bool is_tied) {
  auto config =
      fs::is_directory(base.path) ? model::text_config(io::read_json_file(base.path / kConfigFile), kConfigFile) : config_of_gguf(base);
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = dtype == torch::kBFloat16 ? "bfloat16"
                                                               : dtype == torch::kHalf   ? "float16"
                                                                                         : "float32";
  config["tie_word_embeddings"] = is_tied;
  return io::dump_json(config, kConfigFile, 2) + "\n";
}

void copy_tokenizer(const methods::BaseModel& base, const fs::path& folder) {
  if (!fs::is_directory(base.path)) {
    const io::MappedFile file(base.path);
    io::write_file_atomic(folder / text::kGgufTokenizerFile, io::GgufView::parse(file.bytes(), base.path.string()).metadata_file());
    return;
  }
  for (const auto* name : kTextFiles) {
    if (fs::exists(base.path / name)) io::write_file_atomic(folder / name, io::read_text_file(base.path / name));
  }
}

}  // namespace

void check_may_write_model(const fs::path& folder, bool force) {
  std::error_code error;
  if (!fs::exists(folder, error) || fs::is_empty(folder, error)) return;
  if (!force) fail(ErrorKind::kUsage, "'{}' exists already: choose another name, or `force=true` replaces it", folder.string());
  if (!is_ours(folder)) {
    fail(ErrorKind::kUsage,
         "'{}' exists and is no model that was made by `full_fine_tuning` or an export: it is not replaced, even by force",
         folder.string());
  }
  io::check_holds_only(folder, all_files());
}

tensor::TensorMap stored_weights(const methods::BaseModel& base, const tensor::TensorMap& changed, torch::Dtype dtype) {
  const auto& spec = base.lm.spec();
  const std::string prefix = spec.names.prefix;
  const double norm_offset = model::family_of(spec).norm_offset - spec.block.norm.offset;  // not 0 for a base from a GGUF file
  tensor::TensorMap stored;
  const auto add = [&](const std::string& path, const torch::Tensor& weight) {
    const bool is_norm = weight.dim() == 1 && path.ends_with(".weight");
    stored.emplace(prefix + path, model::as_stored(spec, path, (is_norm && norm_offset != 0 ? weight - norm_offset : weight).to(dtype)));
  };
  for (const auto& [path, weight] : changed) {
    if (path.starts_with(spec.names.head))
      stored.emplace(path, weight.to(dtype));
    else
      add(path, weight);
  }
  for (const auto& [name, weight] : base.lm.weights()) {
    if (stored.contains(name)) continue;
    if (name.starts_with(spec.names.head))
      stored.emplace(name, weight.to(dtype));
    else
      add(name.substr(prefix.size()), weight);
  }
  return stored;
}

void write_model_folder(const fs::path& folder, const methods::BaseModel& base, const tensor::TensorMap& weights, const std::string& card,
                        bool force) {
  check_may_write_model(folder, force);
  io::AtomicFolderWriter writer(folder);
  copy_tokenizer(base, writer.temp());
  const bool is_tied = !weights.contains(base.lm.spec().names.head + std::string(".weight"));
  io::write_file_atomic(writer.temp() / kConfigFile, config_text(base, weights.begin()->second.scalar_type(), is_tied));
  const bool has_gguf_tokenizer = fs::exists(writer.temp() / text::kGgufTokenizerFile);
  if (!card.empty()) io::write_file_atomic(writer.temp() / kCardFile, card + (has_gguf_tokenizer ? kGgufTokenizerNote : ""));
  tensor::save_tensors(writer.temp() / kWeightsFile, weights, {{"format", "pt"}, {kWrittenBy, "quiver"}});
  writer.commit(force ? io::IfExists::kReplace : io::IfExists::kRefuse);
}

}  // namespace quiver::recipes
