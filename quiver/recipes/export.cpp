#include "quiver/recipes/export.h"

#include <torch/utils.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/gguf_model.h"
#include "quiver/io/json.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/gguf_export.h"
#include "quiver/recipes/model_folder.h"
#include "quiver/text/gguf_tokenizer.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

torch::Dtype torch_dtype(io::GgufType type) {
  if (type == io::GgufType::kF32) return torch::kFloat;
  if (type == io::GgufType::kF16) return torch::kHalf;
  if (type == io::GgufType::kBF16) return torch::kBFloat16;
  fail(ErrorKind::kUsage, "safetensors files hold no {}; choose f32, f16 or bf16", io::gguf_type_name(type));
}

/// The type that a folder's configuration names, else BF16.
io::GgufType stored_type(const methods::BaseModel& base) {
  if (!fs::is_directory(base.path)) return io::GgufType::kBF16;
  const auto config = io::read_json_file(base.path / "config.json");
  const auto name = config.value("dtype", config.value("torch_dtype", std::string("bfloat16")));
  return name == "float32" ? io::GgufType::kF32 : name == "float16" ? io::GgufType::kF16 : io::GgufType::kBF16;
}

/// llama.cpp's number of a file whose matrices are of this type, general.file_type.
std::int64_t file_type(io::GgufType type) {
  constexpr std::pair<io::GgufType, std::int64_t> kTypes[] = {
      {io::GgufType::kF32, 0}, {io::GgufType::kF16, 1}, {io::GgufType::kQ8_0, 7}, {io::GgufType::kBF16, 32}};
  return std::ranges::find(kTypes, type, &std::pair<io::GgufType, std::int64_t>::first)->second;
}

/// Throws kUsage unless a file may be written to `path`: there is nothing, or with `force` a GGUF file. kNotFound without its folder.
void check_may_write_gguf(const fs::path& path, bool force) {
  const auto folder = io::folder_of(path);
  if (!fs::is_directory(folder)) fail(ErrorKind::kNotFound, "cannot write '{}': there is no folder '{}'", path.string(), folder.string());
  if (!fs::exists(path)) return;
  if (!force) fail(ErrorKind::kUsage, "'{}' exists already: choose another name, or `force=true` replaces it", path.string());
  const bool is_gguf = fs::is_regular_file(path) && [&] {
    const io::MappedFile file(path);
    constexpr std::string_view kMagic = "GGUF";
    const auto bytes = file.bytes();
    return bytes.empty() || (bytes.size() >= 4 && std::memcmp(bytes.data(), kMagic.data(), 4) == 0);
  }();
  if (!is_gguf) fail(ErrorKind::kUsage, "'{}' exists and is no GGUF file: it is not replaced, even by force", path.string());
}

/// Model::weights() without the prefix of the names, those in `changed` in place of the base's.
tensor::TensorMap weights_by_path(const model::Model& base, const tensor::TensorMap& changed) {
  auto weights = changed;
  const auto& names = base.spec().names;
  for (const auto& [name, weight] : base.weights()) {
    const bool is_head = name.starts_with(names.head);
    weights.emplace(is_head ? name : name.substr(std::string_view(names.prefix).size()), weight);
  }
  return weights;
}

/// The metadata of a merged model: the base's own where it is a GGUF file, else its description and tokenizer.
io::GgufMetadata model_metadata(const methods::BaseModel& base, io::GgufType type) {
  io::GgufMetadata metadata;
  if (fs::is_directory(base.path)) {
    const auto& spec = base.lm.spec();
    metadata = model::gguf_description(spec);
    metadata.merge(text::gguf_tokenizer(base.path, model::gguf_architecture(spec), spec.vocab_size));
  } else {
    metadata = io::GgufModel(base.path).view().metadata();
    std::erase_if(metadata, [](const auto& item) { return item.first.starts_with("split.") || item.first.starts_with("quantize."); });
  }
  metadata["general.file_type"] = file_type(type);
  metadata["general.quantization_version"] = std::int64_t{2};
  return metadata;
}

/// The pairs as tensors of an adapter file of llama.cpp, whose scaling is alpha / rank for all.
std::vector<io::GgufSource> lora_tensors(const model::ModelSpec& spec, const adapters::LoraAdapter& adapter, double alpha,
                                         io::GgufType type) {
  std::map<std::string, model::GgufSlot> slots;
  for (const auto& slot : model::gguf_slots(spec)) slots.emplace(slot.name, slot);
  std::vector<io::GgufSource> tensors;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto slot = slots.find(path == "lm_head" ? std::string(spec.names.head) : path);
    if (slot == slots.end()) fail(ErrorKind::kUnsupported, "adapter '{}' adapts '{}', which GGUF files do not name", adapter.name, path);
    const auto wide = pair.to(torch::kCPU, torch::kFloat);
    const double ratio = pair.scaling() * static_cast<double>(pair.rank()) / alpha;
    const auto lora_b = model::to_gguf_rows(slot->second, wide.lora_b() * ratio, adapter.name);
    const bool is_embedding = path == spec.names.embedding;  // whose rows are those of tokens
    tensors.push_back(model::gguf_source(slot->second.gguf + ".weight.lora_a", is_embedding ? wide.lora_a().t() : wide.lora_a(), type));
    tensors.push_back(model::gguf_source(slot->second.gguf + ".weight.lora_b", lora_b, type));
  }
  return tensors;
}

nlohmann::json export_gguf_lora(const methods::BaseModel& base, const adapters::LoraAdapter& given, const ExportOptions& options,
                                const fs::path& path) {
  adapters::refuse_more_than_lora(given, "write it as a GGUF file");
  const auto spec = model::gguf_form(model::load_spec(base.path));
  const auto adapter = methods::stacked_in_form_of(spec, given);
  const auto type = options.type.value_or(io::GgufType::kF32);
  const double alpha = adapter.pairs.begin()->second.alpha();
  io::GgufMetadata metadata = {{"general.architecture", model::gguf_architecture(spec)},
                               {"general.type", "adapter"},
                               {"adapter.type", "lora"},
                               {"adapter.lora.alpha", alpha}};
  if (!adapter.name.empty()) metadata["general.name"] = adapter.name;
  if (!spec.name.empty()) {
    metadata["general.base_model.count"] = std::int64_t{1};
    metadata["general.base_model.0.name"] = spec.name;
  }
  metadata["general.file_type"] = file_type(type);
  const auto tensors = lora_tensors(spec, adapter, alpha, type);
  io::write_gguf(path, metadata, tensors);
  return {{"path", path.string()}, {"form", "gguf-lora"}, {"type", io::gguf_type_name(type)}, {"modules", adapter.pairs.size()}};
}

/// Embedding and head with the adapter's LoRAs of them. The head is there unless it is the embedding.
void add_outer_weights(const model::Model& base, const adapters::LoraAdapter& adapter, tensor::TensorMap& merged) {
  const auto& names = base.spec().names;
  auto embedding = base.embedding(), head = base.head().linear.weight().dense();
  if (const auto found = adapter.pairs.find(names.embedding); found != adapter.pairs.end()) {
    embedding = embedding + found->second.delta().t().to(embedding.scalar_type());
  }
  if (const auto found = adapter.pairs.find("lm_head"); found != adapter.pairs.end()) head = adapters::merged_weight(head, found->second);
  merged[names.embedding + std::string(".weight")] = embedding;
  if (!base.spec().tie_word_embeddings || !embedding.equal(head)) merged[names.head + std::string(".weight")] = head;
}

/// The base's weights and biases that the adapter changes, merged, by path, embedding and head among them.
tensor::TensorMap merged_weights(const model::Model& base, adapters::LoraAdapter adapter) {
  adapter = methods::stacked_in_form_of(base.spec(), std::move(adapter));
  tensor::TensorMap merged;
  add_outer_weights(base, adapter, merged);
  for (const auto& [path, pair] : adapter.pairs) {
    const auto found = base.linears().find(path);
    if (found == base.linears().end()) continue;  // the outer ones
    const auto& linear = found->second;
    merged.emplace(path + ".weight", adapters::merged_weight(linear.weight().dense(), pair));
    const auto bias = adapters::merged_bias(linear.bias(), pair);
    if (!bias.defined()) continue;
    if (!linear.bias().defined())
      fail(ErrorKind::kUnsupported, "adapter '{}' has a bias for '{}', which has none in the base: models of its family hold none",
           adapter.name, path);
    merged.emplace(path + ".bias", bias);
  }
  return merged;
}

/// The base with the adapter's whole weights and rows of tokens in the place of its own.
methods::BaseModel with_whole_weights(methods::BaseModel base, adapters::LoraAdapter adapter) {
  adapter.pairs.clear();
  base.lm = methods::with_adapter(base.lm, std::move(adapter));
  return base;
}

}  // namespace

adapters::CardFacts card_facts(const library::Library& library, const std::vector<std::string>& names) {
  adapters::CardFacts facts;
  std::set<std::string> tasks;
  for (const auto& name : names) {
    const auto& info = library.at(name).info;
    tasks.insert(info.tasks.begin(), info.tasks.end());
  }
  facts.datasets.assign(tasks.begin(), tasks.end());
  if (names.size() != 1) return facts;
  const auto& training = library.at(names.front()).info.training;
  if (training.contains("last_loss")) facts.metrics["train_loss"] = training.at("last_loss").get<double>();
  if (training.contains("validations")) {
    for (const auto& validation : training.at("validations")) {
      if (validation.at("step") == training.at("best_step")) facts.metrics["eval_loss"] = validation.at("loss").get<double>();
    }
  }
  return facts;
}

void check_export(const fs::path& path, const ExportOptions& options) {
  if (options.form == ExportForm::kPeft) library::check_may_write(path, options.force);
  if (options.form == ExportForm::kHuggingFace) {
    if (options.type) torch_dtype(*options.type);
    check_may_write_model(path, options.force);
  }
  if (options.form == ExportForm::kGguf || options.form == ExportForm::kGgufLora) check_may_write_gguf(path, options.force);
  if (options.form == ExportForm::kGgufLora && options.type == io::GgufType::kQ8_0)
    fail(ErrorKind::kUsage, "adapters are not written as Q8_0; choose f32, f16 or bf16");
}

nlohmann::json export_adapter(const methods::BaseModel& base, const adapters::LoraAdapter& adapter, const adapters::CardFacts& facts,
                              const ExportOptions& options, const fs::path& path) {
  check_export(path, options);
  if (options.form == ExportForm::kGgufLora) return export_gguf_lora(base, adapter, options, path);
  auto named = adapter;
  named.base_model = base.lm.spec().name;
  named.base_fingerprint = base.lm.fingerprint();
  const auto type = options.type.value_or(io::GgufType::kF32);
  for (auto& [place, pair] : named.pairs) pair = pair.to(torch::kCPU, torch_dtype(type));
  adapters::save_peft(path, named, options.force, facts);
  return {{"path", path.string()}, {"form", "peft"}, {"type", io::gguf_type_name(type)}, {"modules", named.pairs.size()}};
}

nlohmann::json export_model(const methods::BaseModel& base, const adapters::LoraAdapter* adapter, const adapters::CardFacts& facts,
                            const ExportOptions& options, const fs::path& path) {
  check_export(path, options);
  const auto num_merged = adapter == nullptr ? 0 : adapter->pairs.size() + adapter->whole.size() + adapter->tokens.size();
  const auto whole = adapter == nullptr ? base : with_whole_weights(base, *adapter);
  const auto changed = adapter == nullptr ? tensor::TensorMap() : merged_weights(whole.lm, *adapter);
  if (options.form == ExportForm::kGguf) {
    const auto type = options.type.value_or(io::GgufType::kF16);
    auto metadata = model_metadata(base, type);
    if (adapter != nullptr && !adapter->name.empty()) metadata["general.finetune"] = adapter->name;
    io::write_gguf(path, metadata, model::gguf_tensors(base.lm.spec(), weights_by_path(whole.lm, changed), type));
    nlohmann::json result = {{"path", path.string()}, {"form", "gguf"}, {"type", io::gguf_type_name(type)}, {"merged", num_merged}};
    if (const auto lost = model::lost_in_gguf(base.lm.spec()); !lost.empty()) result["warning"] = lost;
    return result;
  }
  const auto card = adapter == nullptr ? std::string() : adapters::merged_card(base.lm.spec().name, *adapter, facts);
  const auto type = options.type.value_or(stored_type(base));
  write_model_folder(path, base, stored_weights(whole, changed, torch_dtype(type)), card, options.force);
  return {{"path", path.string()}, {"form", "hf"}, {"type", io::gguf_type_name(type)}, {"merged", num_merged}};
}

}  // namespace quiver::recipes
