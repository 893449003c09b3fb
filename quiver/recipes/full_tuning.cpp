#include "quiver/recipes/full_tuning.h"

#include <torch/utils.h>

#include "quiver/io/folder.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/recipes/model_folder.h"
#include "quiver/train/full_weights.h"

namespace quiver::recipes {

nlohmann::json full_fine_tuning(const methods::BaseModel& base, const TrainingSetup& setup, const std::filesystem::path& folder,
                                Progress& progress) {
  check_may_write_model(folder, setup.force);
  io::WorkFolder work(io::beside(folder, ".parts"));
  const auto data = load_training_data(base, setup.tasks, setup);
  const auto placement = base.lm.placement();
  const TrainingInputs inputs{base.lm, data, setup.train};
  const auto key = methods::ArtifactKey("full-3").add(inputs).hex();
  const auto weights = std::make_shared<train::FullWeights>("full", base.lm.linears(), placement.device, placement.dtype);
  auto trainer = inputs.trainer(std::shared_ptr<train::Trainable>(weights));
  train::run_training(trainer, "the whole model", work.file("full.safetensors"), key, setup.checkpoint_seconds, progress);

  write_model_folder(folder, base, stored_weights(base, weights->weights(trainer.result()), placement.dtype), "", setup.force);
  work.remove();
  return {{"path", folder.string()}, {"parameters", weights->values().numel()}, {"training", summary_of(trainer.stats())}};
}

}  // namespace quiver::recipes
