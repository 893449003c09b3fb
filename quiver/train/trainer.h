// Training one adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/forest/token_forest.h"
#include "quiver/lora/lora_linear.h"
#include "quiver/model/forest_pass.h"
#include "quiver/model/llama.h"
#include "quiver/train/optimizer.h"

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
  bool share_prefixes = true;  ///< compute common prefixes of a batch once; exact
};

/// What training did. Tokens are those of the original examples, a shared prefix counted as often as it occurs; rows
/// are what was computed.
struct TrainStats {
  std::int64_t steps = 0;
  std::int64_t tokens = 0;
  std::int64_t rows = 0;
  double seconds = 0;
  std::vector<double> losses;  ///< per step
};

/// The labels of a batch with their weights in the loss.
model::LossTargets loss_targets(const forest::ForestBatch& batch, LossMean mean);

/// The loss of a batch by its definition, differentiable by autograd: a float32 scalar (float64 for float64 models). A
/// training step computes the same by model::add_loss_gradient.
torch::Tensor batch_loss(const model::Llama& adapted, const forest::ForestBatch& batch, LossMean mean);

/// Trains one adapter step by step. The order of examples is a function of (seed, adapter name, epoch); nothing else is
/// random without dropout, whose masks are a function of (seed, adapter name, step, path). So a restored trainer goes
/// on exactly as the saved one would have. Not thread-safe; uses all of libtorch's threads.
class Trainer {
 public:
  /// Throws kUsage for no examples, epochs or batch size below 1, or an example beyond the model's context.
  Trainer(const model::Llama& base, const lora::LoraAdapter& initial, std::vector<forest::Sequence> examples,
          const TrainOptions& options);

  std::int64_t num_steps() const { return num_steps_; }
  std::int64_t step() const { return stats_.steps; }
  bool is_done() const { return step() >= num_steps_; }
  /// Tokens of the examples in the whole run, and in the batch of the next step.
  std::int64_t num_tokens() const { return num_tokens_ * options_.epochs; }
  std::int64_t next_batch_tokens() const;
  /// One optimiser step. Throws kUsage when the loss is not finite: the rate diverges; the adapter stays as it was.
  void run_step();
  /// The gradient of step's batch before clipping, by tensor; for tests.
  lora::LoraAdapter adapter() const { return parameters_.snapshot(); }
  const FlatParameters& parameters() const { return parameters_; }
  const TrainStats& stats() const { return stats_; }
  double last_grad_norm() const { return last_grad_norm_; }

  /// Writes all that run_step depends on, atomically. `key` names what is trained (options, data, base): restore
  /// refuses, by returning false, a checkpoint with another key. A damaged checkpoint is kBadFormat.
  void save(const std::filesystem::path& path, const std::string& key) const;
  bool restore(const std::filesystem::path& path, const std::string& key);

 private:
  std::vector<std::size_t> epoch_order(std::int64_t epoch) const;
  std::vector<std::size_t> next_batch() const;
  void draw_dropout_masks(std::int64_t num_rows);

  model::Llama base_, adapted_;
  FlatParameters parameters_;
  AdamW optimizer_;
  std::vector<forest::Sequence> examples_;
  TrainOptions options_;
  std::int64_t steps_per_epoch_ = 0, num_steps_ = 0, num_tokens_ = 0;
  TrainStats stats_;
  double last_grad_norm_ = 0;
  mutable std::int64_t order_epoch_ = -1;
  mutable std::vector<std::size_t> order_;
  std::vector<std::shared_ptr<lora::LoraLinear>> dropout_layers_;
  std::vector<std::string> dropout_paths_;
};

}  // namespace quiver::train
