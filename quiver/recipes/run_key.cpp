#include "quiver/recipes/run_key.h"

#include "quiver/data/prompt_format.h"
#include "quiver/data/tasks.h"
#include "quiver/io/file.h"
#include "quiver/lora/peft.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::recipes {
namespace {

void add_library(ArtifactKey& key, const library::Library& library, const AdapterChoice& choice) {
  for (const auto& [name, entry] : library.adapters()) {
    const auto folder = library.adapter_folder(name);
    key.add(name).add(library::kind_name(entry.info.kind)).add_value(entry.info.tasks);
    for (const char* file : {"adapter_model.safetensors", "adapter_config.json"}) key.add(io::sha256_file(folder / file));
  }
  if (reuse_method(choice.method).needs_task_data) {
    for (const auto& name : library_members(library, choice)) {
      for (const auto& task : library.at(name).info.tasks) key.add(data::task_sha256(choice.task_data, task));
    }
  }
  if (!choice.method.starts_with("task=")) return;
  if (const auto mixing = library.find_mixing(choice.kind)) {
    for (const auto& [name, tensor] : mixing->tensors) key.add(name).add(tensor);
  }
}

}  // namespace

ArtifactKey begin_run_key(std::string_view what, const BaseModel& base, const AdapterChoice& choice) {
  ArtifactKey key(what);
  key.add(base.llama).add(data::describe(base.format)).add(choice_text(choice));
  if (!choice.adapter.empty()) key.add(lora::load_peft(choice.adapter));
  if (!choice.library.empty()) add_library(key, library::Library::open(choice.library), choice);
  return key;
}

}  // namespace quiver::recipes
