// Training step by step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/decoder.h"
#include "quiver/train/optimizer.h"
#include "quiver/train/train_stats.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

/// What a batch's loss is the mean of.
enum class LossMean {
  kExamples,  ///< mean over examples of the mean over their label tokens (mttl's micro-batches of one)
  kTokens,    ///< mean over all label tokens of the batch (transformers' Trainer)
};

struct TrainOptions {
  OptimizerOptions optimizer;
  std::int64_t epochs = 5;
  std::int64_t batch_size = 16;
  std::uint64_t seed = 42;
  LossMean loss_mean = LossMean::kExamples;
  bool share_prefixes = true;  ///< compute common prefixes of a batch once; exact but for dropout, whose masks rows share
  /// A step's batch is computed in pieces of at most so many tokens, shared prefixes counted once: the same gradient in
  /// less memory. 0: all at once.
  std::int64_t micro_batch_tokens = 0;
  bool checkpoint_activations = false;       ///< model::PassOptions
  std::int64_t validate_every = 0;           ///< steps; 0: every epoch. Only where there are validation examples
  std::int64_t patience = 0;                 ///< validations without a better loss before training ends; 0: never
  std::optional<std::int64_t> memory_limit;  ///< bytes a batch may take; what the system has left if not given
};

/// A batch in runs of at most `max_tokens` rows (0: one run), ordered so that common prefixes meet. Throws kUsage for a
/// sequence that is longer alone.
std::vector<std::vector<forest::Sequence>> split_batch(std::vector<forest::Sequence> sequences, std::int64_t max_tokens,
                                                       bool share_prefixes);

/// What a loss is a mean over: the examples with labels, or their labels.
std::int64_t num_meant(std::span<const forest::Sequence> sequences, LossMean mean);

/// The labels of a batch with their weights in the loss.
model::LossTargets loss_targets(const forest::ForestBatch& batch, LossMean mean);
/// The same where the loss of sequence s is part of a mean over meant[s] examples (or labels), of other batches or of fewer than this.
model::LossTargets loss_targets(const forest::ForestBatch& batch, LossMean mean, std::span<const std::int64_t> meant);

/// Trains an adapter, or what else is trainable, step by step. The order of examples is a function of (seed, name, epoch); nothing else is
/// random without dropout, whose masks are a function of (seed, name, step, path), and Trainable::set_noise, of (seed, name, step). So a
/// restored trainer goes on exactly as the saved one would have. With validation examples the result is what had the lowest loss on them.
/// Not thread-safe; uses all of libtorch's threads.
class Trainer {
 public:
  /// The examples' groups (forest::Sequence::group) tell a Trainable which of its parts they train.
  /// Throws kUsage for no examples, epochs or batch size below 1, an example beyond the model's context or
  /// micro_batch_tokens, or a batch that does not fit into memory.
  Trainer(const model::Model& base, std::shared_ptr<Trainable> trained, std::vector<forest::Sequence> examples, const TrainOptions& options,
          std::vector<forest::Sequence> validation = {});
  /// One adapter, in float32 (float64 over a float64 base).
  Trainer(const model::Model& base, const adapters::LoraAdapter& initial, std::vector<forest::Sequence> examples,
          const TrainOptions& options, std::vector<forest::Sequence> validation = {});

  std::int64_t num_steps() const { return num_steps_; }
  std::int64_t step() const { return stats_.steps; }
  bool is_done() const { return step() >= num_steps_ || has_lost_patience(); }
  /// Tokens of the examples in the whole run, and in the batch of the next step.
  std::int64_t num_tokens() const { return num_tokens_ * options_.epochs; }
  std::int64_t next_batch_tokens() const;
  /// One optimiser step, and a validation where one is due. Throws kUsage when the loss or the gradient is not finite: the rate diverges;
  /// the adapter stays as it was.
  void run_step();

  /// The halves of run_step, for those who compute the gradients of several trainers in one pass (adapter_group.h): the sequences of the
  /// next batch, its gradient set to zero; and the step with the gradient that was added since.
  std::vector<forest::Sequence> begin_step();
  struct Computed {
    double loss = 0;
    std::int64_t tokens = 0, rows = 0;
    double seconds = 0;
  };
  void finish_step(const Computed& computed);
  const TrainOptions& options() const { return options_; }
  Trainable& trained() { return *trained_; }
  /// The values as they are, or with validation as they were at their best.
  torch::Tensor result() const { return best_values_.defined() ? best_values_ : trained_->values(); }
  /// The model that computes with what is trained.
  const model::Model& model() const { return adapted_.model(); }
  /// The result of a trainer of one adapter.
  adapters::LoraAdapter adapter() const;
  const TrainStats& stats() const { return stats_; }

  /// Writes all that run_step depends on, atomically. `key` names what is trained (options, data, base): restore
  /// refuses, by returning false, a checkpoint with another key. A damaged checkpoint is kBadFormat (checkpoint.h). A restore that throws
  /// or returns false leaves the trainer as it was.
  void save(const std::filesystem::path& path, const std::string& key) const;
  bool restore(const std::filesystem::path& path, const std::string& key);

 private:
  std::vector<std::size_t> epoch_order(std::int64_t epoch) const;
  std::vector<std::size_t> next_batch() const;
  void lay_out(std::vector<forest::Sequence>& sequences);
  void draw_dropout_masks(std::int64_t num_rows, std::size_t piece);
  Computed add_gradient(const std::vector<forest::Sequence>& sequences);
  bool has_lost_patience() const;
  void validate();
  void check_examples(const char* what, const std::vector<forest::Sequence>& sequences) const;
  void check_memory() const;

  model::Model base_;
  std::shared_ptr<Trainable> trained_;
  model::TrainedModel adapted_;
  AdamW optimizer_;
  std::vector<forest::Sequence> examples_, validation_;
  torch::Tensor best_values_;  // with validation
  TrainOptions options_;
  std::int64_t steps_per_epoch_ = 0, num_steps_ = 0, num_tokens_ = 0;
  TrainStats stats_;
  mutable std::int64_t order_epoch_ = -1;
  mutable std::vector<std::size_t> order_;
};

}  // namespace quiver::train
