#include "quiver/recipes/full_tuning.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/model/families.h"
#include "quiver/train/full_weights.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWrittenBy = "quiver.written_by";  // in the weights' metadata
constexpr const char* kWeightsFile = "model.safetensors";
constexpr std::string_view kFiles[] = {
    "config.json",         "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", text::kGgufTokenizerFile, kWeightsFile};

/// What is there may be replaced only if it is a model that this command made.
void check_may_write(const fs::path& folder, bool force) {
  std::error_code error;
  if (!fs::exists(folder, error) || fs::is_empty(folder, error)) return;
  if (!force) fail(ErrorKind::kUsage, "'{}' exists already: choose another name, or `force=true` replaces it", folder.string());
  const bool has_weights = fs::is_directory(folder, error) && fs::exists(folder / kWeightsFile, error);
  const auto is_ours = [](const fs::path& weights) {
    const io::MappedFile file(weights);
    return io::SafetensorsView::parse(file.bytes(), weights.string()).metadata().contains(kWrittenBy);
  };
  if (!has_weights || !is_ours(folder / kWeightsFile)) {
    fail(ErrorKind::kUsage, "'{}' exists and was not made by `full_fine_tuning`: it is not replaced, even by force", folder.string());
  }
  io::check_holds_only(folder, kFiles);
}

/// The files of a model folder that tell of anything but weights.
void copy_files(const methods::BaseModel& base, const fs::path& folder) {
  if (!fs::is_directory(base.path)) {
    const io::MappedFile file(base.path);
    io::write_file_atomic(folder / text::kGgufTokenizerFile, io::GgufView::parse(file.bytes(), base.path.string()).metadata_file());
    const auto config = model::spec_to_json(base.lm.spec());
    io::write_file_atomic(folder / "config.json", io::dump_json(config, "config.json", 2) + "\n");
    return;
  }
  for (const auto name : kFiles) {
    if (name != kWeightsFile && fs::exists(base.path / name)) io::write_file_atomic(folder / name, io::read_text_file(base.path / name));
  }
}

}  // namespace

nlohmann::json full_fine_tuning(const methods::BaseModel& base, const TrainingSetup& setup, const fs::path& folder, Progress& progress) {
  check_may_write(folder, setup.force);
  io::WorkFolder work(io::beside(folder, ".parts"));
  const auto data = load_training_data(base, setup.tasks, setup);
  const auto placement = base.lm.placement();
  const TrainingInputs inputs{base.lm, data, setup.train};
  const auto key = methods::ArtifactKey("full-3").add(inputs).hex();
  const auto weights = std::make_shared<train::FullWeights>("full", base.lm.linears(), placement.device, placement.dtype);
  auto trainer = inputs.trainer(std::shared_ptr<train::Trainable>(weights));
  train::run_training(trainer, "the whole model", work.file("full.safetensors"), key, setup.checkpoint_seconds, progress);

  io::AtomicFolderWriter writer(folder);
  copy_files(base, writer.temp());
  tensor::TensorMap tensors;
  const auto& spec = base.lm.spec();
  const std::string prefix = spec.names.prefix;
  const auto add = [&](const std::string& path, const torch::Tensor& weight) {
    tensors.emplace(prefix + path, model::as_stored(spec, path, weight.to(placement.dtype)));
  };
  for (const auto& [path, weight] : weights->weights(trainer.result())) add(path, weight);
  for (const auto& [name, weight] : base.lm.weights()) {  // those not trained
    if (name.starts_with(spec.names.head))
      tensors.emplace(name, weight.to(placement.dtype));
    else
      add(name.substr(prefix.size()), weight);
  }
  tensor::save_tensors(writer.temp() / kWeightsFile, tensors, {{"format", "pt"}, {kWrittenBy, "full_fine_tuning"}});
  writer.commit(setup.force ? io::IfExists::kReplace : io::IfExists::kRefuse);
  work.remove();
  return {{"path", folder.string()}, {"parameters", weights->values().numel()}, {"training", summary_of(trainer.stats())}};
}

}  // namespace quiver::recipes
