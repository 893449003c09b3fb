// Several adapters trained in one batch: one pass over the model for a step of each.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quiver/train/grouped_training.h"
#include "quiver/train/trainer.h"

namespace quiver::train {

/// Runs trainers of one adapter each side by side. A step takes the next batch of every trainer that is not done, computes them as groups
/// of one forest (adapters::GroupedUpdate), and lets every trainer take its own optimiser step, with its own schedule, clipping, validation
/// and end. So each gives what it would give alone, up to the rounding of products over more rows; which rounding that is depends on the
/// members. For batches too small to keep the machine busy. Not thread-safe.
class AdapterGroup {
 public:
  /// The trainers are the caller's, and stay usable: save and restore them as ever. Throws kUnsupported for dropout, DoRA or
  /// micro_batch_tokens, kMismatch unless all adapt the same paths with the same ranks and scalings, kUsage for no member.
  AdapterGroup(const model::Model& base, std::vector<Trainer*> members);

  bool is_done() const;
  /// Tokens of the examples in the next step.
  std::int64_t next_batch_tokens() const;
  /// One step of every member that is not done. Errors as Trainer::run_step; members before the one that failed have taken theirs.
  void run_step();

 private:
  void lay_out(const std::vector<Trainer*>& active);
  void collect(const std::vector<Trainer*>& active);

  std::vector<Trainer*> members_;
  std::map<std::string, GroupedTraining> updates_;
  model::TrainedModel adapted_;
};

}  // namespace quiver::train
