// One training from examples on disk to its end: what all recipes that train share.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/adapters/init.h"
#include "quiver/base/progress.h"
#include "quiver/data/tasks.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/base_model.h"
#include "quiver/train/mixture.h"
#include "quiver/train/trainer.h"
#include "quiver/train/training_run.h"

namespace quiver::recipes {

/// Settings of training that were found by trial, or taken from the paper.
struct TrainingRecipe {
  double learning_rate = 0;         ///< of an adapter per task or cluster
  double shared_learning_rate = 0;  ///< of one adapter on all tasks
  std::int64_t epochs = 0;
  std::int64_t batch_size = 0;
};
/// What docs/study/recipe.md found, for trainings of 18 to 300 steps: what the program does unless it is told otherwise.
inline constexpr TrainingRecipe kRecipe{.learning_rate = 8e-4, .shared_learning_rate = 2e-4, .epochs = 3, .batch_size = 8};
/// Ostapenko et al. 2024, app. 9, and their code.
inline constexpr TrainingRecipe kPaperRecipe{.learning_rate = 1e-4, .shared_learning_rate = 1e-4, .epochs = 5, .batch_size = 16};

/// How adapters are trained and on what. Defaults are the paper's (docs/papers.md) where it has one.
struct TrainingSetup {
  std::filesystem::path data;  ///< folder of task files
  std::vector<std::string> tasks;
  std::int64_t max_examples = 0;   ///< per task; 0: all training rows
  double data_share = 1;           ///< of those: the same rows first, at least one
  std::int64_t max_valid = 0;      ///< validation rows per task, to choose the best checkpoint by; 0: the last is kept
  std::int64_t max_length = 2048;  ///< tokens of an example, cut from the left
  adapters::LoraOptions lora;
  adapters::LoraInit init = adapters::LoraInit::kMttl;
  train::TrainOptions train;
  std::int64_t together = 1;       ///< private adapters trained in one batch (train/adapter_group.h)
  double checkpoint_seconds = 20;  ///< between checkpoints of a running training
  bool force = false;              ///< train again what the library holds with other settings
};

/// All that the trained numbers depend on: not how much memory they took (checkpoint_activations), for one.
/// A chat format is said, bare text, which was all there was once, is not.
nlohmann::json settings_json(const TrainingSetup& setup, const methods::BaseModel& base);

/// The training rows of a task that the setup asks for, at least one. Throws kUsage for a share outside (0, 1].
std::vector<data::Example> training_rows(const data::Task& task, const TrainingSetup& setup);

/// The examples of a training. Those of tasks[i] are of group i.
struct TrainingData {
  std::vector<forest::Sequence> examples, validation;
};
/// Throws kNotFound, kBadFormat, and kUsage for a task without training rows, or without validation rows where they are asked for.
TrainingData load_training_data(const methods::BaseModel& base, const std::vector<std::string>& tasks, const TrainingSetup& setup);

/// All that a training depends on, but for what it trains. Both the trainer and its key are made from this value.
struct TrainingInputs {
  const model::Model& base;
  const TrainingData& data;
  const train::TrainOptions& options;
  void add_to(methods::ArtifactKey& key) const;
  /// `trained`: an initial adapter, or a shared Trainable.
  template <typename Trained>
  train::Trainer trainer(const Trained& trained) const {
    return {base, trained, data.examples, options, data.validation};
  }
};

/// An adapter that changes nothing yet, of a name.
struct FreshAdapter {
  std::string name;
  const adapters::LoraOptions& options;
  adapters::LoraInit init = adapters::LoraInit::kMttl;
  std::uint64_t seed = 0;
  void add_to(methods::ArtifactKey& key) const;
  adapters::LoraAdapter make(const methods::BaseModel& base) const;
};

/// A mixture that changes nothing yet.
struct MixtureInputs {
  const std::string& name;
  const std::vector<adapters::LoraAdapter>& skills;
  std::int64_t num_tasks = 1;
  train::MixtureOptions options;
  void add_to(methods::ArtifactKey& key) const;
  /// Computes in the base's dtype, but at least in float32.
  std::shared_ptr<train::Mixture> make(tensor::Placement placement) const;
};

/// Steps, tokens, rows, seconds, first and last loss, validations.
nlohmann::json summary_of(const train::TrainStats& stats);
/// What a library keeps of an adapter's training: summary_of with all "losses", and "key" and "settings".
nlohmann::json training_record(const train::TrainStats& stats, const std::string& key, const nlohmann::json& settings);
/// The stats that a training_record was made from. `origin` begins messages. Throws kBadFormat.
train::TrainStats stored_stats(const nlohmann::json& training, const std::string& origin);

/// Of wall time.
inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace quiver::recipes
