#include "quiver/adapters/peft.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "quiver/adapters/peft_config.h"
#include "quiver/adapters/peft_names.h"
#include "quiver/adapters/peft_tensors.h"
#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFactorA = ".lora_A";
constexpr std::string_view kFactorB = ".lora_B";
constexpr std::string_view kMagnitude = ".lora_magnitude_vector";
constexpr std::string_view kTokens = ".token_adapter.trainable_tokens_delta";
constexpr const char* kFingerprintKey = "quiver.base_fingerprint";
constexpr const char* kPromptFormatKey = "quiver.prompt_format";

/// Throws kBadFormat with the name and the place of the first number that is not finite.
void check_finite(const io::TensorEntry& entry, const torch::Tensor& values, const io::SafetensorsView& view) {
  if (tensor::all_finite(values)) return;
  const auto first = torch::isfinite(values).flatten().logical_not().nonzero()[0].item<std::int64_t>();
  std::string place;  // row-major
  for (std::int64_t dim = 0, rest = first, block = values.numel(); dim < values.dim(); ++dim) {
    block /= values.size(dim);
    place += format("{}{}", dim == 0 ? "" : ", ", rest / block);
    rest %= block;
  }
  fail(ErrorKind::kBadFormat, "{}: '{}' holds {} at [{}], no finite number (did the training diverge?)", view.origin(), entry.name,
       values.flatten()[first].item<double>(), place);
}

LoraPair make_pair(const std::string& module, const FactorEntries& factors, const PeftConfig& config, const io::SafetensorsView& view) {
  const auto context = [&] { return format("{}: module '{}'", view.origin(), module); };
  auto lora_a = tensor::to_tensor(*factors.lora_a);
  auto lora_b = tensor::to_tensor(*factors.lora_b);
  if (factors.is_embedding && factors.magnitude != nullptr) {
    fail(ErrorKind::kUnsupported, "{} is an embedding with a DoRA, which is not supported; expected a LoRA", context());
  }
  for (const auto& [entry, factor] : {std::pair(factors.lora_a, lora_a), std::pair(factors.lora_b, lora_b)}) {
    if (factor.numel() == 0) {
      fail(ErrorKind::kBadFormat,
           "{}: '{}' is empty, as DeepSpeed's ZeRO-3 writes what lies on other devices; gather the weights before saving", view.origin(),
           entry->name);
    }
    check_finite(*entry, factor, view);
  }
  if (lora_a.scalar_type() != lora_b.scalar_type()) {  // PEFT computes in the wider of both
    const auto dtype = c10::promoteTypes(lora_a.scalar_type(), lora_b.scalar_type());
    lora_a = lora_a.to(dtype);
    lora_b = lora_b.to(dtype);
  }
  if (!config.selects(module)) {
    fail(ErrorKind::kMismatch,
         "{} has LoRA factors, but target_modules (with exclude_modules and layers_to_transform) of {} leave it out, so PEFT would ignore "
         "them",
         context(), kPeftConfigFile);
  }
  const auto rank = config.rank_of(module);
  if (lora_a.dim() == 2 && lora_a.size(0) != rank) {
    fail(ErrorKind::kMismatch, "{} has lora_A {}, which is of rank {}, but {} says rank {} (r or rank_pattern)", context(),
         tensor::describe(lora_a), lora_a.size(0), kPeftConfigFile, rank);
  }
  if (config.options.use_dora != (factors.magnitude != nullptr)) {
    fail(ErrorKind::kMismatch, "{} has {} lora_magnitude_vector, but use_dora is {} in {}", context(),
         factors.magnitude != nullptr ? "a" : "no", config.options.use_dora, kPeftConfigFile);
  }
  if (config.has_lora_bias != (factors.bias != nullptr)) {
    fail(ErrorKind::kMismatch, "{} has {} lora_B.bias, but lora_bias is {} in {}", context(), factors.bias != nullptr ? "a" : "no",
         config.has_lora_bias, kPeftConfigFile);
  }
  const auto of_rows = [&](const io::TensorEntry* entry) {
    if (entry == nullptr) return torch::Tensor();
    const auto values = tensor::to_tensor(*entry);
    check_finite(*entry, values, view);
    return values.to(lora_a.scalar_type());
  };
  const auto scale = static_cast<float>(scaling(config.alpha_of(module), rank, config.options.use_rslora));
  if (!std::isfinite(scale)) {
    fail(ErrorKind::kBadFormat, "{} has lora_alpha {}, which makes a scaling beyond float32; expected a smaller one in {}", context(),
         config.alpha_of(module), kPeftConfigFile);
  }
  try {
    return LoraPair(std::move(lora_a), std::move(lora_b), config.alpha_of(module), config.options.use_rslora, of_rows(factors.magnitude),
                    of_rows(factors.bias));
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", context(), error.what());
  }
}

/// Whole weights and rows of single tokens.
void read_beside_factors(const PeftTensors& tensors, const PeftConfig& config, const io::SafetensorsView& view, LoraAdapter& adapter) {
  const auto values_of = [&](const io::TensorEntry& entry) {
    const auto values = tensor::to_tensor(entry);
    if (!values.is_floating_point()) {
      fail(ErrorKind::kUnsupported, "{}: tensor '{}' is {}; expected floating-point weights", view.origin(), entry.name,
           tensor::describe(values));
    }
    check_finite(entry, values, view);
    return values;
  };
  for (const auto& [name, whole] : tensors.whole)
    adapter.whole.emplace(path_of(name), WholeWeight{values_of(*whole.entry), whole.is_of_tied_head});
  if (config.ensures_weight_tying &&
      (!tensors.whole.empty() || std::ranges::any_of(tensors.factors, [](const auto& e) { return e.second.is_embedding; }))) {
    fail(ErrorKind::kUnsupported, "{}: ensure_weight_tying is true for an adapter of embeddings, which is not supported", view.origin());
  }
  for (const auto& [module, entry] : tensors.tokens) {
    auto ids = config.trainable_tokens.find("");  // a list without a name is of the embedding
    if (!is_embedding(module)) ids = config.trainable_tokens.end();
    for (auto it = config.trainable_tokens.begin(); it != config.trainable_tokens.end(); ++it) {
      if (!it->first.empty() && ModuleSelection{{it->first}, {}}.matches(module)) ids = it;
    }
    auto rows = values_of(*entry);
    if (ids == config.trainable_tokens.end() || rows.dim() != 2 || rows.size(0) != std::ssize(ids->second)) {
      fail(ErrorKind::kMismatch, "{}: '{}' is {}, but trainable_token_indices of {} has {} tokens for it", view.origin(), entry->name,
           tensor::describe(rows), kPeftConfigFile, ids == config.trainable_tokens.end() ? 0 : ids->second.size());
    }
    adapter.tokens.emplace(path_of(module), TokenRows{ids->second, rows});
  }
}

constexpr std::string_view kPeftFiles[] = {kPeftConfigFile, kPeftTensorsFile, "README.md"};

bool is_there(const fs::path& path) {
  std::error_code error;  // what cannot be examined is reported by whoever opens it
  return fs::exists(path, error);
}

fs::path tensors_file(const fs::path& folder) {
  const auto path = folder / kPeftTensorsFile;
  if (!is_there(path) && is_there(folder / "adapter_model.bin")) {
    fail(
        ErrorKind::kUnsupported,
        "'{}' holds its weights as adapter_model.bin, a Python pickle, which is not read (it may run any code). This command "
        "converts it: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{}/adapter_model.bin', weights_only=True), "
        "'{}')\"",
        folder.string(), folder.string(), path.string());
  }
  return path;
}

void check_is_adapter(const fs::path& folder) {
  if (is_there(folder / kPeftConfigFile)) return;
  fail(ErrorKind::kNotFound, "'{}' is no PEFT adapter folder: it has no {}{}", folder.string(), kPeftConfigFile,
       is_there(folder) ? "" : " (there is no such folder)");
}

}  // namespace

LoraAdapter load_peft(const fs::path& folder) {
  check_is_adapter(folder);
  const auto config_path = folder / kPeftConfigFile;
  LoraAdapter adapter;
  adapter.peft_config = io::read_text_file(config_path);
  auto file = io::MappedFile(tensors_file(folder));
  // Where the folder is replaced meanwhile (save_peft by force), both files must be of one folder.
  for (auto text = io::read_text_file(config_path); text != adapter.peft_config; text = io::read_text_file(config_path)) {
    adapter.peft_config = std::move(text);
    file = io::MappedFile(tensors_file(folder));
  }
  const auto config = parse_peft_config(adapter.peft_config, config_path.string());
  const auto view = io::SafetensorsView::parse(file.bytes(), (folder / kPeftTensorsFile).string());

  adapter.name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  adapter.options = config.options;
  adapter.base_model = config.base_model;
  if (const auto found = view.metadata().find(kFingerprintKey); found != view.metadata().end()) {
    adapter.base_fingerprint = found->second;
  }
  if (const auto found = view.metadata().find(kPromptFormatKey); found != view.metadata().end()) adapter.prompt_format = found->second;
  const auto tensors = sort_tensors(view, config);
  read_beside_factors(tensors, config, view, adapter);
  for (const auto& [module, factors] : tensors.factors) {
    const auto [place, is_new] = adapter.pairs.emplace(path_of(module), make_pair(module, factors, config, view));
    if (!is_new) {
      fail(ErrorKind::kBadFormat, "{}: '{}' is there twice, with and without a leading '{}'", view.origin(), place->first, kModelPrefix);
    }
  }
  if (adapter.options.target_modules.empty()) {  // they were given as an expression
    std::set<std::string> names;
    for (const auto& [path, pair] : adapter.pairs) names.insert(path.substr(path.rfind('.') + 1));
    adapter.options.target_modules.assign(names.begin(), names.end());
  }
  return adapter;
}

std::set<std::string> peft_paths(const fs::path& folder) {
  check_is_adapter(folder);
  const io::MappedFile file(tensors_file(folder));
  const auto view = io::SafetensorsView::parse(file.bytes(), (folder / kPeftTensorsFile).string());
  std::set<std::string> paths;
  for (const auto& entry : view.entries()) {
    std::string_view name = entry.name;
    const auto end = name.find(".lora_B");
    if (name.starts_with(kPeftPrefix) && end != std::string_view::npos) {
      paths.insert(path_of(std::string(name.substr(kPeftPrefix.size(), end - kPeftPrefix.size()))));
    }
  }
  return paths;
}

void write_peft_files(const fs::path& folder, const LoraAdapter& adapter, const CardFacts& facts) {
  if (adapter.pairs.empty()) {
    fail(ErrorKind::kMismatch, "adapter '{}' has no LoRA pairs: there is nothing to save", adapter.name);
  }
  tensor::TensorMap tensors;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto stem = std::string(kPeftPrefix) + module_of(path);
    const auto* weight = is_embedding(path) ? "" : ".weight";
    tensors.emplace(format("{}{}{}", stem, is_embedding(path) ? ".lora_embedding_A" : kFactorA, weight), pair.lora_a());
    tensors.emplace(format("{}{}{}", stem, is_embedding(path) ? ".lora_embedding_B" : kFactorB, weight), pair.lora_b());
    if (pair.magnitude().defined()) tensors.emplace(format("{}{}", stem, kMagnitude), pair.magnitude());
    if (pair.bias().defined()) tensors.emplace(format("{}{}.bias", stem, kFactorB), pair.bias());
  }
  for (const auto& [name, weight] : adapter.whole) {
    const auto dot = name.rfind('.');
    const auto path = name.substr(0, dot);
    const auto* base = weight.is_of_tied_head && adapter.pairs.contains(path) ? ".base_layer" : "";
    tensors.emplace(format("{}{}{}{}", kPeftPrefix, module_of(path), base, name.substr(dot)), weight.value);
  }
  for (const auto& [path, tokens] : adapter.tokens) {
    tensors.emplace(format("{}{}{}", kPeftPrefix, module_of(path), kTokens), tokens.rows);
  }
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!adapter.base_fingerprint.empty()) metadata[kFingerprintKey] = adapter.base_fingerprint;
  if (!adapter.prompt_format.empty()) metadata[kPromptFormatKey] = adapter.prompt_format;
  io::write_file_atomic(folder / kPeftConfigFile, peft_config_text(adapter));
  tensor::save_tensors(folder / kPeftTensorsFile, tensors, metadata);
  io::write_file_atomic(folder / "README.md", adapter_card(adapter, facts));
}

void check_may_write(const fs::path& folder, bool force) {
  std::error_code error;
  const bool is_filled = is_there(folder) && !(fs::is_directory(folder, error) && fs::is_empty(folder, error));
  if (is_filled && !force) {
    fail(ErrorKind::kUsage, "'{}' exists already: choose another folder, or `force=true` replaces it", folder.string());
  }
  if (is_filled && !is_there(folder / kPeftConfigFile)) {
    fail(ErrorKind::kUsage, "'{}' exists and is no adapter folder (it has no {}): it is not replaced, even by force", folder.string(),
         kPeftConfigFile);
  }
  if (is_filled) check_holds_only_peft(folder);
}

void check_holds_only_peft(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) io::check_holds_only(folder, kPeftFiles);
}

void save_peft(const fs::path& folder, const LoraAdapter& adapter, bool force, const CardFacts& facts) {
  check_may_write(folder, force);
  io::AtomicFolderWriter writer(folder);
  write_peft_files(writer.temp(), adapter, facts);
  writer.commit(force ? io::IfExists::kReplace : io::IfExists::kRefuse);
}

}  // namespace quiver::adapters
