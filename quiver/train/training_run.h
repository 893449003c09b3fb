// A training from its last checkpoint to its end.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/train/trainer.h"

namespace quiver::train {

/// Runs the trainer to its end. A checkpoint at `checkpoint` is taken up if it has the same `key`. Another is written now and then, and
/// when a stop is asked for. The caller removes the last one.
double run_training(Trainer& trainer, const std::string& name, const std::filesystem::path& checkpoint, const std::string& key,
                    double checkpoint_seconds, Progress& progress);
/// A trainer with the name, checkpoint and key that run_training takes.
struct TrainingJob {
  Trainer* trainer = nullptr;
  std::string name;
  std::filesystem::path checkpoint;
  std::string key;
};
/// The same for trainers of one adapter each that share batches; each has a checkpoint of its own.
void run_together(const model::Model& base, const std::vector<TrainingJob>& jobs, double checkpoint_seconds, Progress& progress);
/// When the result is safe: removes the checkpoint, and what writers of it that were killed left behind.
void remove_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace quiver::train
