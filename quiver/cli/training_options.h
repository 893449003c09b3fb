// The options of everything that trains.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "quiver/cli/command.h"
#include "quiver/recipes/build_library.h"

namespace quiver::cli {

struct TrainingArguments {
  recipes::TrainingSetup setup;
  std::string data = "data/train";
  std::string tasks = "all";
  std::string library;
  std::string loss_mean = "examples";
  std::string init = "mttl";
  std::string schedule = "linear";
  std::string share_prefixes = "auto";
  std::string train_on = "all";
  std::optional<double> learning_rate;  ///< these three: else the recipe's
  std::optional<std::int64_t> epochs, batch_size;
  bool is_paper = false;  ///< the recipe is the paper's

  /// Which messages of the assistant are trained on.
  data::TrainOn resolve_train_on() const;
  /// The setup with tasks selected and words resolved. `is_shared`: of one adapter on all tasks.
  recipes::TrainingSetup resolve(std::uint64_t seed, bool is_shared = false) const;
};

/// What a verb does with a training, so that options of the rest are refused.
struct TrainingUse {
  std::string chosen;           ///< for messages: "--method mean"
  bool trains = true;           ///< at all
  bool makes_lora = true;       ///< a new LoRA
  bool trains_factors = true;   ///< lora_a and lora_b, of an adapter or of skills
  bool has_inputs = true;       ///< of LoRAs, which --dropout is of
  bool trains_private = false;  ///< adapters that can share a batch
  bool paper_sets_rate = true;  ///< where --lr is not given
  std::string epochs_from;      ///< an option that says the epochs in place of --epochs, if there is one
};
/// Throws kUsage, naming it, for a training option that the use does not read.
void check_training_options(const CLI::App& command, const TrainingArguments& arguments, const TrainingUse& use);

/// How to train: all but which tasks, and into which library.
void add_training_settings(CLI::App& command, TrainingArguments& arguments);
/// --data --tasks --library, and the settings.
void add_training_options(CLI::App& command, TrainingArguments& arguments);

}  // namespace quiver::cli
