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

/// How to train: all but which tasks, and into which library.
void add_training_settings(CLI::App& command, TrainingArguments& arguments);
/// --data --tasks --library, and the settings.
void add_training_options(CLI::App& command, TrainingArguments& arguments);

}  // namespace quiver::cli
