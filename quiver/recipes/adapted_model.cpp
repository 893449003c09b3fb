#include "quiver/recipes/adapted_model.h"

#include <algorithm>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/data/tasks.h"
#include "quiver/io/file.h"
#include "quiver/merge/registry.h"
#include "quiver/merge/subtract.h"
#include "quiver/recipes/adapter_bank.h"
#include "quiver/recipes/artifact_key.h"
#include "quiver/recipes/kept.h"
#include "quiver/recipes/reuse_methods.h"
#include "quiver/recipes/train_skills.h"

namespace quiver::recipes {
namespace {

/// A warning, or nothing (adapters::check_fits).
std::optional<std::string> check(const adapters::LoraAdapter& adapter, const BaseModel& base, bool allow_other_base) {
  return adapters::check_fits(adapter, base.llama.linears(), base.llama.spec().name, base.llama.fingerprint(), allow_other_base);
}

model::Model with_one(const BaseModel& base, const adapters::LoraAdapter& adapter) {
  auto placed = adapter;
  for (auto& [path, pair] : placed.pairs) pair = pair.to(base.llama.placement().device, torch::kFloat);
  placed.options.dropout = 0;  // a matter of training only
  return base.llama.with_linears(adapters::attach(base.llama.linears(), placed));
}

std::vector<std::string> names_of_kind(const library::Library& library, std::span<const library::AdapterKind> kinds) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : library.adapters()) {
    if (std::ranges::find(kinds, entry.info.kind) != kinds.end()) names.push_back(name);
  }
  return names;
}

}  // namespace

void warn_of_format(std::span<const adapters::LoraAdapter> adapters, const BaseModel& base, Progress& progress) {
  const auto used = data::describe(base.format);
  const adapters::LoraAdapter* first = nullptr;
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

std::vector<routing::GroupLease> AdaptedModel::groups_of(std::span<const Prompt> prompts, Progress& progress) const {
  if (chooser == nullptr) return {};
  return chooser->groups_of(prompts, progress);
}

void AdaptedModel::forget_prompts() const {
  if (chooser != nullptr) chooser->forget();
}

std::vector<routing::GroupLease> AdaptedModel::assign_groups(std::span<forest::Sequence> sequences, Progress& progress) const {
  if (chooser == nullptr || sequences.empty()) return {};
  std::vector<Prompt> prompts;
  for (const auto& sequence : sequences) {
    // An empty context has its start token: at least one token comes before the targets.
    prompts.emplace_back(sequence.tokens.begin(), sequence.tokens.end() - static_cast<std::ptrdiff_t>(sequence.num_targets));
  }
  auto groups = chooser->groups_of(prompts, progress);
  for (std::size_t i = 0; i < sequences.size(); ++i) sequences[i].group = *groups[i];
  return groups;
}

namespace {

void add_adapter_files(ArtifactKey& key, const std::filesystem::path& folder) {
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json"}) key.add(io::sha256_file(folder / file));
}

/// All adapters, since which of them a method takes depends on their kinds and tasks; and how tasks mix the skills of `kind`.
void add_library(ArtifactKey& key, const library::Library& library, const std::string& kind) {
  key.add_value(library.adapters().size());
  for (const auto& [name, entry] : library.adapters()) {
    key.add(name).add_values(entry.info.kind, entry.info.tasks);
    add_adapter_files(key, library.adapter_folder(name));
  }
  if (!library::find_kind(kind)) return;
  const auto mixing = library.find_mixing(kind);
  if (!mixing) return;
  const auto& [logits, meta] = *mixing;
  const auto& [tasks, skills, rule, granularity, heads] = meta;
  key.add(logits).add_values(tasks, rule, granularity, heads, skills.size());
  for (const auto& [skill, sha256] : skills) key.add(skill).add(sha256);
}

/// Whether the method looks at texts of the adapters' tasks. An evaluation's "oracle" is no method of reuse, and does not.
bool reads_task_data(const std::string& method) { return method != "oracle" && reuse_method(method).needs_task_data; }

}  // namespace

void add_to_key(ArtifactKey& key, const AdapterChoice& choice) {
  const auto& [adapter, library_path, method, names, kind, allow_other_base, top_k, temperature, tie, tie_by, combine, merge, general,
               general_by_factors, components, gamma, is_calibrated, centroid_score, shortlist, fallback, fallback_strength, task_threshold,
               pooled_weight, calibration, task_data, gate_steps, task_samples] = choice;
  const auto& [calibration_file, num_prompts, max_tokens, seed] = calibration;
  // Adapters of another base are refused or used as they are; paths count by what they lead to.
  key.add_values(method, names, kind, top_k, temperature, tie, tie_by, combine, general, general_by_factors, components, gamma,
                 is_calibrated);
  key.add_values(centroid_score, shortlist, fallback, fallback_strength, task_threshold, pooled_weight, gate_steps, task_samples);
  key.add(merge).add_values(num_prompts, max_tokens, seed);
  key.add(calibration_file.empty() ? "" : io::sha256_file(calibration_file)).add_values(!adapter.empty(), !library_path.empty());
  if (!adapter.empty()) add_adapter_files(key, adapter);
  if (library_path.empty()) return;
  const auto library = library::Library::open(library_path);
  add_library(key, library, kind);
  if (!reads_task_data(method)) return;
  for (const auto& name : library_members(library, choice)) {
    for (const auto& task : library.at(name).info.tasks) key.add(data::task_sha256(task_data, task));
  }
}

std::string model_name(const AdapterChoice& choice) {
  if (!choice.adapter.empty()) return format("the base with adapter '{}'", choice.adapter);
  if (choice.library.empty()) return "the base";
  return format("the base with method '{}' over library '{}'", choice.method, choice.library);
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

routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const adapters::LoraAdapter> adapters) {
  NoProgress quiet;
  routing::PrototypeMap stacked;
  std::vector<routing::PrototypeMap> each;
  for (const auto& adapter : adapters) {
    const auto compute = [](const adapters::LoraAdapter& of, Progress&) -> tensor::TensorMap { return routing::adapter_prototypes(of); };
    each.push_back(kept_in(library, "arrow-prototypes-3", {{"adapter", adapter.name}}, adapter, compute, quiet));
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

std::vector<adapters::LoraAdapter> load_members(const BaseModel& base, const library::Library& library, const AdapterChoice& choice) {
  std::vector<adapters::LoraAdapter> adapters;
  for (const auto& name : library_members(library, choice)) {
    adapters.push_back(library.load(name));
    check(adapters.back(), base, choice.allow_other_base);
  }
  if (choice.general.empty()) return adapters;
  std::vector<adapters::LoraAdapter> general;
  for (const auto& name : choice.general) general.push_back(library.load(name));
  for (auto& adapter : adapters) {
    adapter = choice.general_by_factors ? merge::subtract_factors(adapter, general) : merge::subtract_products(adapter, general);
  }
  return adapters;
}

adapters::LoraAdapter merged_adapter(const BaseModel& base, const library::Library& library, const AdapterChoice& choice) {
  if (choice.method.starts_with("oracle=")) {
    auto adapter = library.load(choice.method.substr(7));
    check(adapter, base, choice.allow_other_base);
    return adapter;
  }
  if (choice.method.starts_with("task=")) {
    const auto kind = library::find_kind(choice.kind);
    if (kind != library::AdapterKind::kPoly && kind != library::AdapterKind::kMhr) {
      fail(ErrorKind::kUsage, "method '{}' mixes the skills of `kind=poly` or `kind=mhr`; give one of them", choice.method);
    }
    auto adapter = task_mixture(library, *kind, choice.method.substr(5));
    check(adapter, base, choice.allow_other_base);
    return adapter;
  }
  expect_merge(choice.method);
  return merge::merge(choice.method, load_members(base, library, choice), choice.merge);
}

AdaptedModel adapted_model(const BaseModel& base, const AdapterChoice& choice, Progress& progress, routing::RoutingRecorder* recorder) {
  if (!choice.adapter.empty() && !choice.library.empty()) {
    fail(ErrorKind::kUsage, "`adapter` '{}' and `library` '{}' exclude each other", choice.adapter, choice.library);
  }
  if (!choice.adapter.empty()) {
    const auto adapter = adapters::load_peft(choice.adapter);
    if (const auto warning = check(adapter, base, choice.allow_other_base)) progress.message(*warning);
    for (const auto& warning : adapters::peft_warnings(adapter, base.llama.linears())) progress.message(warning);
    warn_of_format(std::span(&adapter, 1), base, progress);
    return {with_one(base, adapter), nullptr, model_name(choice)};
  }
  if (choice.library.empty()) return {base.llama, nullptr, model_name(choice)};
  const auto library = library::Library::open(choice.library);
  const auto& method = reuse_method(choice.method);
  if (method.family == ReuseFamily::kMerge) {
    const auto merged = merged_adapter(base, library, choice);
    warn_of_format(std::span(&merged, 1), base, progress);
    return {with_one(base, merged), nullptr, model_name(choice)};
  }
  const auto bank = make_bank(base, library, load_members(base, library, choice), choice, progress);
  auto projections = base.llama.linears();
  routing::attach_routers(projections, bank.adapters, bank.routers, bank.combine, recorder);
  if (!library.cache_fault().empty())
    progress.message(format("warning: what was computed of the adapters cannot be kept for next time: {}", library.cache_fault()));
  return {base.llama.with_linears(std::move(projections)), bank.chooser, model_name(choice)};
}

}  // namespace quiver::recipes
