#include "quiver/recipes/adapted_model.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/lora/lora_linear.h"
#include "quiver/lora/merge_registry.h"
#include "quiver/lora/peft.h"
#include "quiver/lora/subtract.h"
#include "quiver/recipes/adapter_bank.h"
#include "quiver/recipes/artifact_key.h"
#include "quiver/recipes/reuse_methods.h"
#include "quiver/recipes/train_skills.h"

namespace quiver::recipes {
namespace {

/// Part of the key of stored prototypes: changes when their computation does.
constexpr const char* kPrototypeVersion = "arrow-prototypes-2";

/// A warning, or nothing (lora::check_fits).
std::optional<std::string> check(const lora::LoraAdapter& adapter, const BaseModel& base, bool allow_other_base) {
  return lora::check_fits(adapter, base.llama.projections(), base.llama.config().name, base.llama.fingerprint(), allow_other_base);
}

model::Llama with_one(const BaseModel& base, const lora::LoraAdapter& adapter) {
  auto placed = adapter;
  for (auto& [path, pair] : placed.pairs) pair = pair.to(base.llama.placement().device, torch::kFloat);
  placed.options.dropout = 0;  // a matter of training only
  return base.llama.with_projections(lora::attach(base.llama.projections(), placed));
}

std::vector<std::string> names_of_kind(const library::Library& library, std::span<const library::AdapterKind> kinds) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : library.adapters()) {
    if (std::ranges::find(kinds, entry.info.kind) != kinds.end()) names.push_back(name);
  }
  return names;
}

}  // namespace

void warn_of_format(std::span<const lora::LoraAdapter> adapters, const BaseModel& base, Progress& progress) {
  const auto used = data::describe(base.format);
  const lora::LoraAdapter* first = nullptr;
  std::int64_t others = 0;
  for (const auto& adapter : adapters) {
    if (adapter.prompt_format.empty() || adapter.prompt_format == used) continue;
    if (first == nullptr)
      first = &adapter;
    else
      ++others;
  }
  if (first == nullptr) return;
  progress.message(
      format("warning: adapter '{}'{} was trained on {}; prompts are given as {} (`chat=true`, `chat=false` and `system` change that)",
             first->name, others > 0 ? format(" (as {} others)", others) : std::string(), first->prompt_format, used));
}

routing::Combine parse_combine(const std::string& text) {
  if (text == "params") return routing::Combine::kParams;
  if (text == "outputs") return routing::Combine::kOutputs;
  fail(ErrorKind::kUsage, "`combine` '{}' is not one of params, outputs", text);
}

std::vector<std::int32_t> AdaptedModel::groups_of(std::span<const Prompt> prompts, Progress& progress) const {
  if (chooser == nullptr) return {};
  return chooser->groups_of(prompts, progress);
}

void AdaptedModel::assign_groups(std::span<forest::Sequence> sequences, Progress& progress) const {
  if (chooser == nullptr || sequences.empty()) return;
  std::vector<Prompt> prompts;
  for (const auto& sequence : sequences) {
    // An empty context has its start token: at least one token comes before the targets.
    prompts.emplace_back(sequence.tokens.begin(), sequence.tokens.end() - static_cast<std::ptrdiff_t>(sequence.num_targets));
  }
  const auto groups = chooser->groups_of(prompts, progress);
  for (std::size_t i = 0; i < sequences.size(); ++i) sequences[i].group = groups[i];
}

std::string choice_text(const AdapterChoice& choice) {
  auto text = format("{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}/{}", choice.library, choice.method, choice.kind, choice.top_k, choice.temperature,
                     choice.combine, choice.components, choice.gamma, choice.shortlist, choice.fallback, choice.fallback_strength,
                     choice.pooled_weight);
  const auto& c = choice.calibration;
  text += format("/{}/{}/{}/{}/{}/{}/{}", choice.gate_steps, c.file.empty() ? "" : io::sha256_file(c.file), c.num_prompts, c.max_tokens,
                 c.seed, choice.task_data.string(), choice.task_samples);
  const auto& m = choice.merge;
  text += format("/{}/{}/{}/{}/{}", m.lambda.value_or(-1), m.density.value_or(-1), m.rank.value_or(-1), m.seed, choice.general_by_factors);
  for (const auto weight : m.weights) text += format("/{}", weight);
  for (const auto& name : choice.general) text += "/general=" + name;
  for (const auto& name : choice.names) text += "/" + name;
  // Where they are not the usual: what was computed before there were these options is still theirs.
  if (choice.task_threshold != 4) text += format("/threshold {}", choice.task_threshold);
  if (choice.is_calibrated) text += "/calibrated";
  if (choice.centroid_score != "cosine") text += "/centroids by " + choice.centroid_score;
  for (const auto& name : choice.tie) text += format("/tied {} {}", choice.tie_by, name);
  return text;
}

std::vector<std::string> library_members(const library::Library& library, const AdapterChoice& choice) {
  using library::AdapterKind;
  if (!choice.names.empty()) {
    auto names = choice.names;
    for (const auto& name : names) library.at(name);
    std::ranges::sort(names);
    return names;
  }
  std::vector<std::string> names;
  if (choice.kind.empty()) {
    const AdapterKind first[] = {AdapterKind::kPrivate, AdapterKind::kImported}, second[] = {AdapterKind::kCluster};
    names = names_of_kind(library, first);
    if (names.empty()) names = names_of_kind(library, second);
  } else {
    const auto kind = library::find_kind(choice.kind);
    if (!kind) fail(ErrorKind::kUsage, "adapter kind '{}' is not one of {}", choice.kind, library::kind_names());
    names = names_of_kind(library, std::span(&*kind, 1));
  }
  std::erase_if(names, [&](const std::string& name) { return std::ranges::find(choice.general, name) != choice.general.end(); });
  if (names.empty()) {
    fail(ErrorKind::kNotFound, "library '{}' has no {} adapters", library.path().string(), choice.kind.empty() ? "task" : choice.kind);
  }
  return names;
}

routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const lora::LoraAdapter> adapters) {
  routing::PrototypeMap stacked;
  std::vector<routing::PrototypeMap> each;
  for (const auto& adapter : adapters) {
    const auto key = ArtifactKey(kPrototypeVersion).add(adapter).hex();
    auto found = library.find_artifact(key);
    if (!found) {
      found = routing::adapter_prototypes(adapter);
      library.store_artifact(key, *found, {{"what", kPrototypeVersion}, {"adapter", adapter.name}});
    }
    each.push_back(std::move(*found));
  }
  for (const auto& [path, first] : each.at(0)) {
    std::vector<torch::Tensor> rows;
    for (const auto& map : each) {
      const auto row = map.find(path);
      if (row == map.end()) return routing::prototypes(adapters);  // they do not fit together: let it say which
      rows.push_back(row->second);
    }
    stacked.emplace(path, torch::stack(rows));
  }
  return stacked;
}

std::vector<lora::LoraAdapter> load_members(const BaseModel& base, const library::Library& library, const AdapterChoice& choice) {
  std::vector<lora::LoraAdapter> adapters;
  for (const auto& name : library_members(library, choice)) {
    adapters.push_back(library.load(name));
    check(adapters.back(), base, choice.allow_other_base);
  }
  if (choice.general.empty()) return adapters;
  std::vector<lora::LoraAdapter> general;
  for (const auto& name : choice.general) general.push_back(library.load(name));
  for (auto& adapter : adapters) {
    adapter = choice.general_by_factors ? lora::subtract_factors(adapter, general) : lora::subtract_products(adapter, general);
  }
  return adapters;
}

lora::LoraAdapter merged_adapter(const BaseModel& base, const library::Library& library, const AdapterChoice& choice) {
  if (choice.method.starts_with("oracle=")) {
    auto adapter = library.load(choice.method.substr(7));
    check(adapter, base, choice.allow_other_base);
    return adapter;
  }
  if (choice.method.starts_with("task=")) {
    const auto kind = library::find_kind(choice.kind);
    if (!kind) fail(ErrorKind::kUsage, "adapter kind '{}' is not one of {}", choice.kind, library::kind_names());
    auto adapter = task_mixture(library, *kind, choice.method.substr(5));
    check(adapter, base, choice.allow_other_base);
    return adapter;
  }
  if (reuse_method(choice.method).family != ReuseFamily::kMerge) {
    fail(ErrorKind::kUsage, "method '{}' chooses by token or prompt: it does not make one adapter of a library (mean does)", choice.method);
  }
  return lora::merge(choice.method, load_members(base, library, choice), choice.merge);
}

AdaptedModel adapted_model(const BaseModel& base, const AdapterChoice& choice, Progress& progress, routing::RoutingRecorder* recorder) {
  if (!choice.adapter.empty() && !choice.library.empty()) {
    fail(ErrorKind::kUsage, "`adapter` '{}' and `library` '{}' exclude each other", choice.adapter, choice.library);
  }
  if (!choice.adapter.empty()) {
    const auto adapter = lora::load_peft(choice.adapter);
    if (const auto warning = check(adapter, base, choice.allow_other_base)) progress.message(*warning);
    warn_of_format(std::span(&adapter, 1), base, progress);
    return {with_one(base, adapter), nullptr};
  }
  if (choice.library.empty()) return {base.llama, nullptr};
  const auto library = library::Library::open(choice.library);
  const auto& method = reuse_method(choice.method);
  if (method.family == ReuseFamily::kMerge) {
    const auto merged = merged_adapter(base, library, choice);
    warn_of_format(std::span(&merged, 1), base, progress);
    return {with_one(base, merged), nullptr};
  }
  const auto bank = make_bank(base, library, load_members(base, library, choice), choice, progress);
  auto projections = base.llama.projections();
  routing::attach_routers(projections, bank.adapters, bank.routers, bank.combine, recorder);
  if (!library.cache_fault().empty())
    progress.message(format("warning: what was computed of the adapters cannot be kept for next time: {}", library.cache_fault()));
  return {base.llama.with_projections(std::move(projections)), bank.chooser};
}

}  // namespace quiver::recipes
