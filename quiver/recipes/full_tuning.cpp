#include "quiver/recipes/full_tuning.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/train/full_weights.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

/// The files of a model folder that tell of anything but weights.
void copy_files(const BaseModel& base, const fs::path& folder) {
  if (!fs::is_directory(base.path)) {
    const io::MappedFile file(base.path);
    io::write_file_atomic(folder / text::kGgufTokenizerFile, io::GgufView::parse(file.bytes(), base.path.string()).metadata_file());
    const auto config = model::config_to_json(base.llama.config());
    io::write_file_atomic(folder / "config.json", io::dump_json(config, "config.json", 2) + "\n");
    return;
  }
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                           text::kGgufTokenizerFile}) {
    if (fs::exists(base.path / name)) io::write_file_atomic(folder / name, io::read_text_file(base.path / name));
  }
}

}  // namespace

nlohmann::json full_fine_tuning(const BaseModel& base, const TrainingSetup& setup, const fs::path& folder, Progress& progress) {
  if (fs::exists(folder) && !setup.force) fail(ErrorKind::kUsage, "'{}' exists already; --force overwrites it", folder.string());
  const auto data = load_training_data(base, setup.tasks, setup);
  const auto placement = base.llama.placement();
  const auto key = sha256_hex(format("full-1/{}/{}/{}/{}", settings_json(setup).dump(), data.sha256, base.llama.fingerprint(),
                                     c10::toString(placement.dtype)));
  const auto weights = std::make_shared<train::FullWeights>("full", base.llama.projections(), placement.device, placement.dtype);
  train::Trainer trainer(base.llama, weights, data.examples, setup.train, data.validation);
  const auto parts = fs::path(folder.string() + ".parts");
  run_training(trainer, "the whole model", parts / "full.safetensors", key, setup.checkpoint_seconds, progress);
  weights->set_values(trainer.result());

  io::AtomicFolderWriter writer(folder);
  copy_files(base, writer.temp());
  tensor::TensorMap tensors;
  for (const auto& [name, weight] : model::llama_weights(trainer.model())) tensors.emplace(name, weight.to(placement.dtype));
  tensor::save_tensors(writer.temp() / "model.safetensors", tensors, {{"format", "pt"}});
  writer.commit(setup.force ? io::IfExists::kReplace : io::IfExists::kRefuse);
  io::remove_tree(parts);
  return {{"path", folder.string()}, {"parameters", weights->values().numel()}, {"training", summary_of(trainer.stats())}};
}

}  // namespace quiver::recipes
