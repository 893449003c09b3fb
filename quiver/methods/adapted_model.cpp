#include "quiver/methods/adapted_model.h"

#include <algorithm>
#include <set>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/adapters/rows.h"
#include "quiver/base/error.h"
#include "quiver/data/tasks.h"
#include "quiver/io/file.h"
#include "quiver/merge/subtract.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/methods/in_parallel.h"
#include "quiver/methods/load_adapter.h"
#include "quiver/methods/merges.h"
#include "quiver/methods/table.h"

namespace quiver::methods {
namespace {

std::vector<std::string> names_of_kinds(const library::Library& library, const std::set<library::AdapterKind>& kinds) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : library.adapters()) {
    if (kinds.contains(entry.info.kind)) names.push_back(name);
  }
  return names;
}

/// Says, as a warning, which adapters were trained on another format of prompts than the base is given. An unknown format is not spoken of.
void warn_of_format(std::span<const adapters::LoraAdapter> adapters, const BaseModel& base, Progress& progress) {
  const auto used = data::describe(base.format);
  const auto differs = [&](const auto& adapter) { return !adapter.prompt_format.empty() && adapter.prompt_format != used; };
  const auto first = std::ranges::find_if(adapters, differs);
  if (first == adapters.end()) return;
  const auto others = std::ranges::count_if(adapters, differs) - 1;
  progress.message(
      format("warning: adapter '{}'{} was trained on {}; prompts are given as {} (`chat=true`, `chat=false` and `system` change that)",
             first->name, others > 0 ? format(" (as {} others)", others) : std::string(), first->prompt_format, used));
}

void add_adapter_files(ArtifactKey& key, const std::filesystem::path& folder) {
  if (is_gguf_file(folder)) {
    key.add(io::sha256_file(folder));
    return;
  }
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json"}) key.add(io::sha256_file(folder / file));
}

/// A name of the model's weights for a name of an adapter's: the head is "lm_head" there.
std::string weight_name(const model::ModelSpec& spec, const std::string& name) {
  return name.starts_with("lm_head.") ? spec.names.head + name.substr(name.find('.')) : name;
}

/// The weights that an adapter brings in place of the base's, by the model's names.
tensor::TensorMap replaced_weights(const model::Model& base, const adapters::LoraAdapter& adapter) {
  const auto& spec = base.spec();
  const auto embedding = std::string(spec.names.embedding) + ".weight", head = std::string(spec.names.head) + ".weight";
  tensor::TensorMap weights;
  for (const auto& [name, whole] : adapter.whole) {
    weights.insert_or_assign(weight_name(spec, name), whole.value);
    if (whole.is_of_tied_head && name == embedding && spec.tie_word_embeddings) weights.emplace(head, whole.value);
  }
  for (const auto& [path, rows] : adapter.tokens) {
    const auto name = weight_name(spec, path + ".weight");
    if (name != embedding && name != head) {
      fail(ErrorKind::kUnsupported, "adapter '{}' has rows of single tokens for '{}'; expected the embedding or the head", adapter.name,
           path);
    }
    const auto found = weights.find(name);
    const auto whole = found != weights.end() ? found->second : name == head ? base.head().linear.weight().dense() : base.embedding();
    for (const auto token : rows.tokens) {
      if (token < 0 || token >= whole.size(0)) {
        fail(ErrorKind::kMismatch, "adapter '{}' has a row for token {}; the model's vocabulary is {}", adapter.name, token, whole.size(0));
      }
    }
    const auto at = torch::tensor(rows.tokens, torch::kLong).to(whole.device());
    const auto changed = whole.index_copy(0, at, rows.rows.to(whole.device(), whole.scalar_type()));
    weights.insert_or_assign(name, changed);
    if (name == embedding && spec.tie_word_embeddings) weights.insert_or_assign(head, changed);
  }
  return weights;
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

/// Files that options name, by content: those of the adapters' tasks, or the one file.
void add_files(ArtifactKey& key, const AdapterUse& use, const library::Library& library) {
  for (const auto& option : use.method.row().options) {
    if (option.type != OptionType::kFile && option.type != OptionType::kTaskData) continue;
    const auto& path = value_of(option, use.method.options);
    key.add(option.name);
    if (option.type == OptionType::kFile) {
      key.add(path.is_null() ? "" : io::sha256_file(path.get<std::string>()));
      continue;
    }
    for (const auto& name : library_members(library, use.source)) {
      for (const auto& task : library.at(name).info.tasks) key.add(data::task_sha256(path.get<std::string>(), task));
    }
  }
}

/// Weights without names are in the order of names: refused where the user named the adapters in another one.
void check_weights(const AdapterUse& use) {
  const auto found = use.method.options.find("weights");
  if (found == use.method.options.end() || !found->is_array() || std::ranges::is_sorted(use.source.names)) return;
  std::string example;
  for (std::size_t i = 0; i < use.source.names.size(); ++i) {
    const auto weight = i < found->size() ? value_text((*found)[i]) : "0";
    example += (i == 0 ? "" : ",") + use.source.names[i] + "=" + weight;
  }
  fail(ErrorKind::kUsage,
       "`weights` without names are in name order, and `names` gives the adapters in another one; write them by name, as in {}", example);
}

}  // namespace

void add_to_key(ArtifactKey& key, const AdapterUse& use) {
  // Adapters of another base are refused or used as they are; paths count by what they lead to.
  const auto& [adapter, library_path, names, kind, general, general_by_factors, allow_other_base] = use.source;
  key.add_values(!adapter.empty(), !library_path.empty());
  if (!adapter.empty()) add_adapter_files(key, adapter);
  if (library_path.empty()) return;
  const auto& method = use.method.row();
  key.add_values(names, kind, general, general_by_factors).add(method.name).add(canonical_text(method.options, use.method.options));
  const auto library = library::Library::open(library_path);
  add_library(key, library, kind);
  add_files(key, use, library);
}

ArtifactKey begin_run_key(std::string_view what, const BaseModel& base, const AdapterUse& use) {
  ArtifactKey key(what);
  key.add(base);
  add_to_key(key, use);
  return key;
}

std::string model_name(const AdapterUse& use) {
  if (!use.source.adapter.empty()) return format("the base with adapter '{}'", use.source.adapter);
  if (use.source.library.empty()) return "the base";
  return format("the base with method '{}' over library '{}'", text_of(use.method), use.source.library);
}

std::vector<std::string> library_members(const library::Library& library, const AdapterSource& source) {
  using library::AdapterKind;
  if (!source.names.empty()) {
    auto names = source.names;
    for (const auto& name : names) library.at(name);
    std::ranges::sort(names);
    return names;
  }
  std::vector<std::string> names;
  if (source.kind.empty()) {
    names = names_of_kinds(library, {AdapterKind::kPrivate, AdapterKind::kImported});
    if (names.empty()) names = names_of_kinds(library, {AdapterKind::kCluster});
  } else {
    const auto kind = library::find_kind(source.kind);
    if (!kind) fail(ErrorKind::kUsage, "adapter kind '{}' is not one of {}", source.kind, library::kind_names());
    names = names_of_kinds(library, {*kind});
  }
  std::erase_if(names, [&](const std::string& name) { return std::ranges::find(source.general, name) != source.general.end(); });
  if (names.empty()) {
    fail(ErrorKind::kNotFound, "library '{}' has no {} adapters", library.path().string(), source.kind.empty() ? "task" : source.kind);
  }
  return names;
}

std::optional<std::string> check_fits_base(const adapters::LoraAdapter& adapter, const BaseModel& base, bool allow_other_base) {
  return adapters::check_fits(adapter, base.lm.linears(), base.lm.spec().name, base.lm.fingerprint(), allow_other_base,
                              outer_sizes(base.lm));
}

adapters::MapSizes outer_sizes(const model::Model& model) {
  const auto& spec = model.spec();
  return {{spec.names.embedding, {spec.vocab_size, spec.hidden_size}}, {"lm_head", {spec.hidden_size, spec.vocab_size}}};
}

std::vector<adapters::LoraAdapter> load_members(const BaseModel& base, const library::Library& library, const AdapterSource& source) {
  auto names = library_members(library, source);
  const auto num_members = names.size();
  names.insert(names.end(), source.general.begin(), source.general.end());
  std::vector<adapters::LoraAdapter> adapters(names.size());
  in_parallel(names.size(), [&](std::size_t i) {
    adapters[i] = in_form_of(base.lm.spec(), library.load(names[i]));
    if (i < num_members) check_fits_base(adapters[i], base, source.allow_other_base);
  });
  adapters::complete(adapters);
  if (source.general.empty()) return adapters;
  const std::vector<adapters::LoraAdapter> general(adapters.begin() + static_cast<std::ptrdiff_t>(num_members), adapters.end());
  adapters.resize(num_members);
  for (auto& adapter : adapters) {
    adapter = source.general_by_factors ? merge::subtract_factors(adapter, general) : merge::subtract_products(adapter, general);
  }
  return adapters;
}

namespace {

/// What the method is given; checks its options.
LibraryContext context_of(const BaseModel& base, const library::Library& library, const AdapterUse& use, Progress& progress) {
  const auto& method = use.method.row();
  check_options(method.name, method.options, use.method.options);
  LibraryContext in{base, library, use.source, {}, progress};
  if (method.reads_members()) in.adapters = load_members(base, library, use.source);
  return in;
}

/// Routers decide at the maps of the blocks.
void refuse_outer_maps(const LibraryContext& in) {
  for (const auto& adapter : in.adapters) {
    for (const auto& [path, sizes] : outer_sizes(in.base.lm)) {
      const auto found = adapter.pairs.find(path);
      if (found == adapter.pairs.end() || !found->second.lora_a().any().item<bool>()) continue;  // adapters::complete
      fail(ErrorKind::kUnsupported, "adapter '{}' adapts '{}': it cannot be routed, only serve alone or merged", adapter.name, path);
    }
  }
}

}  // namespace

adapters::LoraAdapter merged_adapter(const BaseModel& base, const library::Library& library, const AdapterUse& use) {
  const auto& method = use.method.row();
  expect_merge(method);
  check_weights(use);
  if (const auto* argument = method.argument(); argument != nullptr && !use.method.options.contains(argument->name)) {
    fail(ErrorKind::kUsage, "method '{}' needs a name: {}", method.name, method.usage());
  }
  NoProgress quiet;
  const auto in = context_of(base, library, use, quiet);
  if (const auto* named = std::get_if<MakeNamed>(&method.make)) return (*named)(in, use.method.options);
  return merged(method, in.adapters, use.method.options);
}

RoutedAdapters routed_adapters(const BaseModel& base, const library::Library& library, const AdapterUse& use, Progress& progress) {
  const auto& method = use.method.row();
  expect_routing(method);
  const auto in = context_of(base, library, use, progress);
  refuse_outer_maps(in);
  warn_of_format(in.adapters, base, progress);
  return std::get<MakeRouted>(method.make)(in, use.method.options);
}

model::Model with_adapter(const model::Model& base, adapters::LoraAdapter adapter) {
  for (auto& [path, pair] : adapter.pairs) pair = pair.to(base.placement().device, torch::kFloat);
  const auto& names = base.spec().names;
  auto model = adapter.whole.empty() && adapter.tokens.empty() ? base : base.with_weights(replaced_weights(base, adapter));
  if (const auto found = adapter.pairs.find(names.embedding); found != adapter.pairs.end()) {
    const auto& pair = found->second;
    model = model.with_embedding(pair.lora_a().t(), pair.lora_b() * pair.scaling());
    adapter.pairs.erase(found);
  }
  if (const auto found = adapter.pairs.find("lm_head"); found != adapter.pairs.end()) {
    model = model.with_head(adapters::update_of(model.head().linear, found->second));
    adapter.pairs.erase(found);
  }
  return model.with_linears(adapters::attach(model.linears(), adapter));
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

AdaptedModel adapted_model(const BaseModel& base, const AdapterUse& use, Progress& progress, routing::RoutingRecorder* recorder,
                           routing::RouteObserver* observer) {
  const auto& source = use.source;
  if (!source.adapter.empty() && !source.library.empty()) {
    fail(ErrorKind::kUsage, "`adapter` '{}' and `library` '{}' exclude each other", source.adapter, source.library);
  }
  if (!source.adapter.empty()) {
    const auto adapter = load_adapter(base, source.adapter);
    if (const auto warning = check_fits_base(adapter, base, source.allow_other_base)) progress.message(*warning);
    for (const auto& warning : adapters::peft_warnings(adapter, base.lm.linears())) progress.message(warning);
    warn_of_format(std::span(&adapter, 1), base, progress);
    return {with_adapter(base.lm, adapter), nullptr, model_name(use)};
  }
  if (source.library.empty()) return {base.lm, nullptr, model_name(use)};
  const auto library = library::Library::open(source.library);
  if (use.method.row().family == Family::kMerge) {
    const auto merged = merged_adapter(base, library, use);
    warn_of_format(std::span(&merged, 1), base, progress);
    return {with_adapter(base.lm, merged), nullptr, model_name(use)};
  }
  const auto routed = routed_adapters(base, library, use, progress);
  auto linears = base.lm.linears();
  routing::attach_routers(linears, routed.adapters, routed.routers, routed.combine, recorder, observer);
  if (!library.cache_fault().empty())
    progress.message(format("warning: what was computed of the adapters cannot be kept for next time: {}", library.cache_fault()));
  return {base.lm.with_linears(std::move(linears)), routed.chooser, model_name(use), routing::names_of(routed.adapters)};
}

}  // namespace quiver::methods
