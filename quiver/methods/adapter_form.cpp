#include "quiver/methods/adapter_form.h"

#include <torch/utils.h>

#include <set>

#include "quiver/adapters/init.h"
#include "quiver/adapters/peft.h"
#include "quiver/adapters/rows.h"
#include "quiver/base/error.h"
#include "quiver/methods/load_adapter.h"

namespace quiver::methods {
namespace {

/// A GGUF file names maps as the checkpoint has them.
void add_folder_paths(const std::string& folder, std::set<std::string>& paths) {
  if (!is_gguf_file(folder)) paths.merge(adapters::peft_paths(folder));
}

void add_library_paths(const AdapterSource& source, std::set<std::string>& paths) {
  const auto library = library::Library::open(source.library);
  auto names = source.names;
  names.insert(names.end(), source.general.begin(), source.general.end());
  if (source.names.empty()) names = library.adapter_names();
  for (const auto& name : names) {
    if (library.find(name) == nullptr) continue;  // reported by whoever loads it
    try {
      paths.merge(adapters::peft_paths(library.adapter_folder(name)));
    } catch (const Error&) {
      continue;  // likewise
    }
  }
}

/// The maps of the first layer, in both forms, that the targets select.
void add_target_paths(const model::ModelSpec& spec, const std::vector<std::string>& targets, std::set<std::string>& paths) {
  const auto add = [&](const char* name) {
    const auto path = model::block_path(spec, 0, name);
    for (const auto& target : targets) {
      if (target != "all-linear" && adapters::is_target(path, target)) paths.insert(path);
    }
  };
  for (const auto& map : model::fused_maps(spec)) {
    add(map.name);
    for (const auto& part : map.parts) add(part.name);
  }
}

}  // namespace

model::Fusion fusion_for(const std::string& path, const NamedMaps& maps) {
  const bool names_targets = !maps.target_modules.empty() && maps.target_modules != adapters::LoraOptions().target_modules;
  std::set<std::string> paths;
  if (!maps.adapters.adapter.empty()) add_folder_paths(maps.adapters.adapter, paths);
  for (const auto& folder : maps.folders) add_folder_paths(folder, paths);
  if (!maps.adapters.library.empty()) add_library_paths(maps.adapters, paths);
  for (const auto& library : maps.libraries) add_library_paths({.library = library}, paths);
  if (paths.empty() && !names_targets) return model::Fusion::kAsStored;
  const auto spec = model::load_spec(base_path_or_default(path));
  if (names_targets) add_target_paths(spec, maps.target_modules, paths);
  return model::fusion_for(spec, paths);
}

adapters::LoraAdapter in_form_of(const model::ModelSpec& spec, adapters::LoraAdapter adapter) {
  for (const auto& map : model::fused_maps(spec)) {
    for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
      const auto path_of = [&](const char* name) { return model::block_path(spec, layer, name); };
      const auto whole = adapter.pairs.find(path_of(map.name));
      for (const auto& part : map.parts) {
        const bool is_adapted = adapter.pairs.contains(path_of(part.name));
        if (is_adapted && map.is_fused) {
          fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the model holds within '{}': load the model in its separate form",
               adapter.name, path_of(part.name), path_of(map.name));
        }
        if (is_adapted && whole != adapter.pairs.end()) {
          fail(ErrorKind::kMismatch, "adapter '{}' adapts both '{}' and '{}', which is a part of it", adapter.name, whole->first,
               path_of(part.name));
        }
      }
      if (whole == adapter.pairs.end() || map.is_fused) continue;
      if (whole->second.out_features() != map.num_rows()) {
        fail(ErrorKind::kMismatch,
             "adapter '{}' maps to {} features at '{}', the model's maps of its parts to {} (was it trained on another base?)",
             adapter.name, whole->second.out_features(), whole->first, map.num_rows());
      }
      for (const auto& part : map.parts) {
        adapter.pairs.emplace(path_of(part.name), adapters::of_rows(whole->second, torch::tensor(part.rows(), torch::kLong)));
      }
      adapter.pairs.erase(whole);
    }
  }
  return adapter;
}

adapters::LoraAdapter stacked_in_form_of(const model::ModelSpec& spec, adapters::LoraAdapter adapter) {
  for (const auto& map : model::fused_maps(spec)) {
    if (!map.is_fused) continue;
    for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
      std::vector<adapters::StackedPart> parts;
      bool is_adapted = false;
      for (const auto& part : map.parts) {
        parts.push_back({std::nullopt, torch::tensor(part.rows(), torch::kLong)});
        const auto found = adapter.pairs.find(model::block_path(spec, layer, part.name));
        if (found == adapter.pairs.end()) continue;
        is_adapted = true;
        parts.back().pair = found->second;
        adapter.pairs.erase(found);
      }
      const auto whole = model::block_path(spec, layer, map.name);
      if (is_adapted && !adapter.pairs.emplace(whole, adapters::stacked(parts, map.num_rows())).second) {
        fail(ErrorKind::kMismatch, "adapter '{}' adapts both '{}' and a part of it", adapter.name, whole);
      }
    }
  }
  return in_form_of(spec, std::move(adapter));
}

}  // namespace quiver::methods
