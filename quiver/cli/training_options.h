// The options of everything that trains.
#pragma once

#include <memory>
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

  /// Which messages of the assistant are trained on.
  data::TrainOn resolve_train_on() const;
  /// The setup with tasks selected and words resolved.
  recipes::TrainingSetup resolve(std::uint64_t seed) const;
};

/// How to train: all but which tasks, and into which library.
void add_training_settings(CLI::App& command, TrainingArguments& arguments);
/// --data --tasks --library, and the settings.
void add_training_options(CLI::App& command, TrainingArguments& arguments);

}  // namespace quiver::cli
