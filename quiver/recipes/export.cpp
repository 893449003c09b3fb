#include "quiver/recipes/export.h"

#include <torch/utils.h>

#include <nlohmann/json.hpp>
#include <set>

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/recipes/model_folder.h"

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

/// The weights that the adapter changes, merged, by path.
tensor::TensorMap merged_weights(const methods::BaseModel& base, const adapters::LoraAdapter& adapter) {
  tensor::TensorMap merged;
  for (const auto& [path, pair] : adapter.pairs) {
    merged.emplace(path + ".weight", adapters::merged_weight(base.lm.linears().at(path).weight().dense(), pair));
  }
  return merged;
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
}

nlohmann::json export_adapter(const methods::BaseModel& base, const adapters::LoraAdapter& adapter, const adapters::CardFacts& facts,
                              const ExportOptions& options, const fs::path& path) {
  check_export(path, options);
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
  const auto changed = adapter == nullptr ? tensor::TensorMap() : merged_weights(base, *adapter);
  const auto card = adapter == nullptr ? std::string() : adapters::merged_card(base.lm.spec().name, *adapter, facts);
  const auto type = options.type.value_or(stored_type(base));
  write_model_folder(path, base, stored_weights(base, changed, torch_dtype(type)), card, options.force);
  return {{"path", path.string()}, {"form", "hf"}, {"type", io::gguf_type_name(type)}, {"merged", changed.size()}};
}

}  // namespace quiver::recipes
