#include "quiver/recipes/adapted_model.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/lora/lora_linear.h"
#include "quiver/lora/merge.h"
#include "quiver/lora/peft.h"

namespace quiver::recipes {
namespace {

/// Part of the key of stored prototypes: changes when their computation does.
constexpr const char* kPrototypeVersion = "arrow-prototypes-1";

routing::Combine parse_combine(const std::string& text) {
  if (text == "params") return routing::Combine::kParams;
  if (text == "outputs") return routing::Combine::kOutputs;
  fail(ErrorKind::kUsage, "--combine '{}' is not one of params, outputs", text);
}

void check(const lora::LoraAdapter& adapter, const BaseModel& base, bool allow_other_base) {
  lora::check_fits(adapter, base.llama.projections(), base.llama.config().name, base.llama.fingerprint(), allow_other_base);
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
    bool known = false;
    for (const auto kind : {AdapterKind::kPrivate, AdapterKind::kCluster, AdapterKind::kShared, AdapterKind::kImported}) {
      if (choice.kind != library::kind_name(kind)) continue;
      known = true;
      names = names_of_kind(library, std::span(&kind, 1));
    }
    if (!known) fail(ErrorKind::kUsage, "adapter kind '{}' is not one of private, cluster, shared, imported", choice.kind);
  }
  if (names.empty()) {
    fail(ErrorKind::kNotFound, "library '{}' has no {} adapters", library.path().string(), choice.kind.empty() ? "task" : choice.kind);
  }
  return names;
}

routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const lora::LoraAdapter> adapters) {
  routing::PrototypeMap stacked;
  std::vector<routing::PrototypeMap> each;
  for (const auto& adapter : adapters) {
    const auto key = sha256_hex(format("{}/{}", kPrototypeVersion, library.at(adapter.name).sha256));
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

model::Llama adapted_model(const BaseModel& base, const AdapterChoice& choice, routing::RoutingRecorder* recorder) {
  if (!choice.adapter.empty() && !choice.library.empty()) {
    fail(ErrorKind::kUsage, "--adapter '{}' and --library '{}' exclude each other", choice.adapter, choice.library);
  }
  if (!choice.adapter.empty()) {
    const auto adapter = lora::load_peft(choice.adapter);
    check(adapter, base, choice.allow_other_base);
    return with_one(base, adapter);
  }
  if (choice.library.empty()) return base.llama;
  const auto library = library::Library::open(choice.library);
  if (choice.method.starts_with("oracle=")) {
    const auto adapter = library.load(choice.method.substr(7));
    check(adapter, base, choice.allow_other_base);
    return with_one(base, adapter);
  }
  if (choice.method != "mean" && choice.method != "arrow") {
    fail(ErrorKind::kUsage, "--method '{}' is not one of mean, arrow, oracle=NAME", choice.method);
  }
  std::vector<lora::LoraAdapter> adapters;
  for (const auto& name : library_members(library, choice)) {
    adapters.push_back(library.load(name));
    check(adapters.back(), base, choice.allow_other_base);
  }
  if (choice.method == "mean") return with_one(base, lora::mean_of_factors(adapters));
  const auto count = static_cast<std::int64_t>(adapters.size());
  const routing::ArrowOptions options{.top_k = choice.top_k > 0 ? choice.top_k : std::min<std::int64_t>(4, count),
                                      .temperature = choice.temperature};
  if (choice.top_k < 0 || choice.top_k > count) {
    fail(ErrorKind::kUsage, "--top-k {} does not fit a library of {} adapters; expected 1 to {}", choice.top_k, count, count);
  }
  const auto stored = library_prototypes(library, adapters);
  auto projections = base.llama.projections();
  routing::attach_routed(projections, adapters, options, parse_combine(choice.combine), recorder, &stored);
  return base.llama.with_projections(std::move(projections));
}

}  // namespace quiver::recipes
