#include "quiver/adapters/peft_tensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "quiver/adapters/peft_names.h"
#include "quiver/base/error.h"

namespace quiver::adapters {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kBias = ".bias";

using FactorMember = const io::TensorEntry* FactorEntries::*;

/// What the name of a factor ends with, apart from the adapter's name and ".weight".
struct FactorKind {
  std::string_view ending;
  FactorMember member;
  bool is_bare;  ///< a parameter, which has no ".weight" of its own
  bool is_embedding = false;
};
constexpr FactorKind kKinds[] = {{".lora_A", &FactorEntries::lora_a, false},
                                 {".lora_B", &FactorEntries::lora_b, false},
                                 {".lora_magnitude_vector", &FactorEntries::magnitude, true},
                                 {".lora_embedding_A", &FactorEntries::lora_a, true, true},
                                 {".lora_embedding_B", &FactorEntries::lora_b, true, true}};

/// What the name of a tensor says.
struct FactorName {
  std::string module;
  FactorMember member;
  bool is_embedding;
  std::string adapter;  ///< of a state that was saved without PEFT's clean-up: the name after lora_A, as a rule "default"
};

bool drop_suffix(std::string_view& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return false;
  name.remove_suffix(suffix.size());
  return true;
}

/// "<module>.lora_A.weight", or "....lora_A.<adapter>.weight", ".lora_B.bias", ".lora_magnitude_vector" with or without ".weight". Nothing
/// for other names.
std::optional<FactorName> parse_factor_name(std::string_view name) {
  const bool has_weight = drop_suffix(name, kWeight), is_bias = !has_weight && drop_suffix(name, kBias);
  for (const auto& [ending, member, is_bare, is_embedding] : kKinds) {
    if (is_bias ? member != &FactorEntries::lora_b : !has_weight && !is_bare) continue;
    const auto what = is_bias ? &FactorEntries::bias : member;
    auto module = name;
    if (drop_suffix(module, ending)) return FactorName{std::string(module), what, is_embedding, ""};
    const auto dot = name.rfind('.');
    module = name.substr(0, std::min(dot, name.size()));
    if (dot != std::string_view::npos && drop_suffix(module, ending)) {
      return FactorName{std::string(module), what, is_embedding, std::string(name.substr(dot + 1))};
    }
  }
  return std::nullopt;
}

/// Whether PEFT saves the module as a whole: it, or what holds it, ends with one of the names, as PEFT looks for them.
bool is_saved(const PeftConfig& config, const std::string& module) {
  for (auto end = module.size(); end != std::string::npos; end = end == 0 ? std::string::npos : module.rfind('.', end - 1)) {
    const auto holder = std::string_view(module).substr(0, end);
    if (std::ranges::any_of(config.modules_to_save, [&](const auto& name) { return holder.ends_with(name); })) return true;
  }
  return false;
}

/// A whole weight of a module that is saved, or of embeddings and head, which PEFT saves where they are adapted or resized.
bool add_whole(std::string_view name, const io::TensorEntry& entry, const PeftConfig& config, PeftTensors& tensors) {
  const auto suffix = name.ends_with(kWeight) ? kWeight : kBias;
  auto module = name;
  if (!drop_suffix(module, suffix)) return false;
  const bool is_base = drop_suffix(module, ".base_layer");
  const auto path = std::string(module);
  const bool is_outer = is_embedding(module) || is_head(module);
  if (!(is_outer && suffix == kWeight) && (is_base || !is_saved(config, path))) return false;
  return tensors.whole.emplace(path + std::string(suffix), WholeEntry{&entry, is_base || !is_saved(config, path)}).second;
}

void share_lora_a(const io::SafetensorsView& view, std::map<std::string, FactorEntries>& factors) {
  constexpr std::string_view kSiblings[] = {"q_proj", "k_proj", "v_proj"};
  for (auto& [module, own] : factors) {
    if (own.lora_a != nullptr || own.lora_b == nullptr) continue;
    const auto stored = view.metadata().find(std::string(kPeftPrefix) + module + ".lora_A.weight");
    if (stored != view.metadata().end()) own.lora_a = view.find(stored->second);
    const auto dot = module.rfind('.');
    const auto last = std::string_view(module).substr(dot + 1);
    if (own.lora_a == nullptr && dot != std::string::npos && std::ranges::find(kSiblings, last) != std::end(kSiblings)) {
      std::vector<const io::TensorEntry*> of_siblings;
      for (const auto name : kSiblings) {
        const auto found = factors.find(module.substr(0, dot + 1) + std::string(name));
        if (found != factors.end() && found->second.lora_a != nullptr && !found->second.shares_lora_a) {
          of_siblings.push_back(found->second.lora_a);
        }
      }
      if (of_siblings.size() == 1) own.lora_a = of_siblings.front();
    }
    own.shares_lora_a = own.lora_a != nullptr;
  }
}

void refuse_strangers(const io::SafetensorsView& view, const std::vector<std::string>& strangers) {
  if (strangers.empty()) return;
  if (std::ranges::any_of(strangers, [](const std::string& name) { return name.ends_with(kBias); })) {
    fail(ErrorKind::kUnsupported,
         "{}: {} tensors are no LoRA factors, biases among them: {}; biases that were trained with the adapter cannot be used",
         view.origin(), strangers.size(), listed(strangers));
  }
  fail(ErrorKind::kUnsupported,
       "{}: {} tensors are no LoRA factors of linear layers: {}; expected only base_model.model.<module>.lora_A.weight, .lora_B.weight "
       "and .lora_magnitude_vector",
       view.origin(), strangers.size(), listed(strangers));
}

}  // namespace

bool is_embedding(std::string_view module) {
  constexpr std::string_view kNames[] = {"embed_tokens", "wte", "embed_in"};
  return std::ranges::find(kNames, module.substr(module.rfind('.') + 1)) != std::end(kNames);
}

PeftTensors sort_tensors(const io::SafetensorsView& view, const PeftConfig& config) {
  PeftTensors tensors;
  std::vector<std::string> strangers;
  std::set<std::string> adapters;
  for (const auto& entry : view.entries()) {
    std::string_view name = entry.name;
    if (!name.starts_with(kPeftPrefix)) {
      strangers.push_back(entry.name);
      continue;
    }
    name.remove_prefix(kPeftPrefix.size());
    if (const auto factor = parse_factor_name(name)) {
      adapters.insert(factor->adapter);
      auto& factors = tensors.factors[factor->module];
      auto& member = factors.*(factor->member);
      if (member != nullptr)
        fail(ErrorKind::kBadFormat, "{}: '{}' and '{}' are one factor told twice", view.origin(), member->name, entry.name);
      member = &entry;
      factors.is_embedding |= factor->is_embedding;
    } else if (auto module = name; drop_suffix(module, ".token_adapter.trainable_tokens_delta")) {
      tensors.tokens.emplace(std::string(module), &entry);
    } else if (!add_whole(name, entry, config, tensors)) {
      strangers.push_back(entry.name);
    }
  }
  if (adapters.size() > 1) {
    fail(ErrorKind::kUnsupported, "{}: holds {} adapters, {}; save each in a file of its own", view.origin(), adapters.size(),
         listed({adapters.begin(), adapters.end()}));
  }
  refuse_strangers(view, strangers);
  if (tensors.factors.empty()) fail(ErrorKind::kBadFormat, "{}: holds no LoRA factors at all", view.origin());
  share_lora_a(view, tensors.factors);
  std::vector<std::string> single;
  for (const auto& [module, factors] : tensors.factors) {
    if (factors.lora_a != nullptr && factors.lora_b != nullptr) continue;
    for (const auto* lone : {factors.lora_a, factors.lora_b, factors.magnitude, factors.bias}) {
      if (lone == nullptr) continue;
      single.push_back(lone->name);
      break;
    }
  }
  if (!single.empty()) {
    fail(ErrorKind::kBadFormat, "{}: {} LoRA factors lack their partner: {} (is the file incomplete?)", view.origin(), single.size(),
         listed(single));
  }
  return tensors;
}

}  // namespace quiver::adapters
