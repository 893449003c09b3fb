#include "quiver/adapters/peft.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "quiver/adapters/peft_config.h"
#include "quiver/adapters/peft_names.h"
#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPeftPrefix = "base_model.model.";
constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kFactorA = ".lora_A";
constexpr std::string_view kFactorB = ".lora_B";
constexpr std::string_view kMagnitude = ".lora_magnitude_vector";
constexpr const char* kFingerprintKey = "quiver.base_fingerprint";
constexpr const char* kPromptFormatKey = "quiver.prompt_format";

/// The factors of a module, as found in the file, and a DoRA's magnitude.
struct FactorEntries {
  const io::TensorEntry* lora_a = nullptr;
  const io::TensorEntry* lora_b = nullptr;
  const io::TensorEntry* magnitude = nullptr;
};

using FactorMember = const io::TensorEntry* FactorEntries::*;

/// What the name of a tensor says.
struct FactorName {
  std::string module;
  FactorMember member;
  std::string adapter;  ///< of a state that was saved without PEFT's clean-up: the name after lora_A, as a rule "default"
};

/// "base_model.model.<module>.lora_A.weight", or "....lora_A.<adapter>.weight"; ".lora_magnitude_vector" with or without ".weight". Nothing
/// for other names.
std::optional<FactorName> parse_factor_name(std::string_view name) {
  static constexpr std::pair<std::string_view, FactorMember> kKinds[] = {
      {kFactorA, &FactorEntries::lora_a}, {kFactorB, &FactorEntries::lora_b}, {kMagnitude, &FactorEntries::magnitude}};
  if (!name.starts_with(kPeftPrefix)) return std::nullopt;
  name.remove_prefix(kPeftPrefix.size());
  const bool has_weight = name.ends_with(kWeight);
  if (has_weight) name.remove_suffix(kWeight.size());
  for (const auto& [kind, member] : kKinds) {
    if (!has_weight && kind != kMagnitude) continue;
    if (name.ends_with(kind)) return FactorName{std::string(name.substr(0, name.size() - kind.size())), member, ""};
    const auto dot = name.rfind('.');
    if (dot != std::string_view::npos && name.substr(0, dot).ends_with(kind)) {
      return FactorName{std::string(name.substr(0, dot - kind.size())), member, std::string(name.substr(dot + 1))};
    }
  }
  return std::nullopt;
}

/// Every tensor of the file, sorted into factors by module.
std::map<std::string, FactorEntries> find_factors(const io::SafetensorsView& view) {
  std::map<std::string, FactorEntries> modules;
  std::vector<std::string> strangers;
  std::set<std::string> adapters;
  for (const auto& entry : view.entries()) {
    const auto name = parse_factor_name(entry.name);
    if (!name) {
      strangers.push_back(entry.name);
      continue;
    }
    adapters.insert(name->adapter);
    auto& member = modules[name->module].*(name->member);
    if (member != nullptr)
      fail(ErrorKind::kBadFormat, "{}: '{}' and '{}' are one factor told twice", view.origin(), member->name, entry.name);
    member = &entry;
  }
  if (adapters.size() > 1) {
    fail(ErrorKind::kUnsupported, "{}: holds {} adapters, {}; save each in a file of its own", view.origin(), adapters.size(),
         listed({adapters.begin(), adapters.end()}));
  }
  if (std::ranges::any_of(strangers, [](const std::string& name) { return name.ends_with(".bias"); })) {
    fail(ErrorKind::kUnsupported,
         "{}: {} tensors are no LoRA factors, biases among them: {}; biases that were trained with the adapter cannot be used",
         view.origin(), strangers.size(), listed(strangers));
  }
  if (!strangers.empty()) {
    fail(ErrorKind::kUnsupported,
         "{}: {} tensors are no LoRA factors of linear layers: {}; expected only base_model.model.<module>.lora_A.weight, .lora_B.weight "
         "and .lora_magnitude_vector",
         view.origin(), strangers.size(), listed(strangers));
  }
  if (modules.empty()) fail(ErrorKind::kBadFormat, "{}: holds no LoRA factors at all", view.origin());
  std::vector<std::string> single;
  for (const auto& [module, factors] : modules) {
    if (factors.lora_a == nullptr || factors.lora_b == nullptr) {
      const auto* lone = factors.lora_a != nullptr ? factors.lora_a : factors.lora_b != nullptr ? factors.lora_b : factors.magnitude;
      single.push_back(lone->name);
    }
  }
  if (!single.empty()) {
    fail(ErrorKind::kBadFormat, "{}: {} LoRA factors lack their partner: {} (is the file incomplete?)", view.origin(), single.size(),
         listed(single));
  }
  return modules;
}

/// Throws kBadFormat with the name and the place of the first number that is not finite.
void check_finite(const io::TensorEntry& entry, const torch::Tensor& values, const io::SafetensorsView& view) {
  const auto is_finite = torch::isfinite(values);
  if (is_finite.all().item<bool>()) return;
  const auto first = is_finite.flatten().logical_not().nonzero()[0].item<std::int64_t>();
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
  auto magnitude = factors.magnitude != nullptr ? tensor::to_tensor(*factors.magnitude) : torch::Tensor();
  if (magnitude.defined()) {
    check_finite(*factors.magnitude, magnitude, view);
    magnitude = magnitude.to(lora_a.scalar_type());
  }
  const auto scale = static_cast<float>(scaling(config.alpha_of(module), rank, config.options.use_rslora));
  if (!std::isfinite(scale)) {
    fail(ErrorKind::kBadFormat, "{} has lora_alpha {}, which makes a scaling beyond float32; expected a smaller one in {}", context(),
         config.alpha_of(module), kPeftConfigFile);
  }
  try {
    return LoraPair(std::move(lora_a), std::move(lora_b), config.alpha_of(module), config.options.use_rslora, magnitude);
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", context(), error.what());
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

}  // namespace

LoraAdapter load_peft(const fs::path& folder) {
  const auto config_path = folder / kPeftConfigFile;
  if (!is_there(config_path)) {
    fail(ErrorKind::kNotFound, "'{}' is no PEFT adapter folder: it has no {}{}", folder.string(), kPeftConfigFile,
         is_there(folder) ? "" : " (there is no such folder)");
  }
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
  for (const auto& [module, factors] : find_factors(view)) {
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

void write_peft_files(const fs::path& folder, const LoraAdapter& adapter, const CardFacts& facts) {
  if (adapter.pairs.empty()) {
    fail(ErrorKind::kMismatch, "adapter '{}' has no LoRA pairs: there is nothing to save", adapter.name);
  }
  tensor::TensorMap tensors;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto stem = std::string(kPeftPrefix) + module_of(path);
    tensors.emplace(format("{}{}{}", stem, kFactorA, kWeight), pair.lora_a());
    tensors.emplace(format("{}{}{}", stem, kFactorB, kWeight), pair.lora_b());
    if (pair.magnitude().defined()) tensors.emplace(format("{}{}", stem, kMagnitude), pair.magnitude());
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
