#include "quiver/train/trainer.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>

#include "quiver/backend/ops.h"
#include "quiver/base/error.h"
#include "quiver/base/memory.h"
#include "quiver/base/profile.h"
#include "quiver/base/random.h"
#include "quiver/nn/head_loss.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/train/checkpoint.h"

namespace quiver::train {

std::int64_t num_meant(std::span<const forest::Sequence> sequences, LossMean mean) {
  std::int64_t count = 0;
  for (const auto& sequence : sequences)
    count += mean == LossMean::kTokens ? forest::count_targets(sequence) : (sequence.num_targets > 0 ? 1 : 0);
  return count;
}

model::LossTargets loss_targets(const forest::ForestBatch& batch, LossMean mean) {
  std::vector<std::int64_t> labels(batch.last_rows.size(), 0);
  for (const auto& target : batch.targets) ++labels[static_cast<std::size_t>(target.sequence)];
  const auto num_with_labels = std::ranges::count_if(labels, [](std::int64_t n) { return n > 0; });
  const auto whole =
      mean == LossMean::kTokens ? static_cast<std::int64_t>(batch.targets.size()) : static_cast<std::int64_t>(num_with_labels);
  return loss_targets(batch, mean, std::vector<std::int64_t>(labels.size(), whole));
}

model::LossTargets loss_targets(const forest::ForestBatch& batch, LossMean mean, std::span<const std::int64_t> meant) {
  std::vector<std::int64_t> labels(batch.last_rows.size(), 0);
  for (const auto& target : batch.targets) ++labels[static_cast<std::size_t>(target.sequence)];
  const auto num_targets = static_cast<std::int64_t>(batch.targets.size());
  model::LossTargets targets;
  targets.tokens = torch::empty({num_targets}, torch::kLong);
  targets.weights = torch::empty({num_targets}, torch::kDouble);  // rounded to what the loss is computed in
  const auto tokens = tensor::mutable_elements<std::int64_t>(targets.tokens, "targets");
  const auto weights = tensor::mutable_elements<double>(targets.weights, "weights of targets");
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    const auto& target = batch.targets[i];
    const auto s = static_cast<std::size_t>(target.sequence);
    targets.rows.push_back(target.row);
    tokens[i] = target.token;
    weights[i] = 1.0 / static_cast<double>(mean == LossMean::kTokens ? meant[s] : labels[s] * meant[s]);
  }
  return targets;
}

std::vector<std::vector<forest::Sequence>> split_batch(std::vector<forest::Sequence> sequences, std::int64_t max_tokens,
                                                       bool share_prefixes) {
  if (max_tokens == 0) return {std::move(sequences)};
  std::ranges::stable_sort(sequences, {}, &forest::Sequence::tokens);
  const auto num_rows = [share_prefixes](std::span<const forest::Sequence> piece) {
    return forest::build_batch(piece, {.share_prefixes = share_prefixes}).forest.num_rows();
  };
  std::vector<std::vector<forest::Sequence>> pieces = {{}};
  for (auto& sequence : sequences) {
    if (const auto alone = num_rows(std::span(&sequence, 1)); alone > max_tokens) {
      fail(ErrorKind::kUsage, "{} takes {} tokens, a piece of a batch at most {}; raise `micro_batch_tokens` or lower `max_length`",
           sequence.name.empty() ? "an example" : sequence.name, alone, max_tokens);
    }
    auto& piece = pieces.back();
    piece.push_back(std::move(sequence));
    if (num_rows(piece) <= max_tokens) continue;
    auto last = std::move(piece.back());
    piece.pop_back();
    pieces.push_back({std::move(last)});
  }
  return pieces;
}

namespace {

/// Lays out the weights for the backward pass, on all threads.
void prepare_backward(const model::Model& model) {
  std::vector<const nn::Linear*> all = {&model.head().linear};
  for (const auto& [path, linear] : model.linears()) all.push_back(&linear);
  at::parallel_for(0, static_cast<std::int64_t>(all.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) all[static_cast<std::size_t>(i)]->prepare_backward();
  });
}

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Trainer::Trainer(const model::Model& base, const adapters::LoraAdapter& initial, std::vector<forest::Sequence> examples,
                 const TrainOptions& options, std::vector<forest::Sequence> validation)
    : Trainer(base,
              std::make_shared<OneAdapter>(initial, base.placement().device,
                                           base.placement().dtype == torch::kDouble ? torch::kDouble : torch::kFloat),
              std::move(examples), options, std::move(validation)) {}

Trainer::Trainer(const model::Model& base, std::shared_ptr<Trainable> trained, std::vector<forest::Sequence> examples,
                 const TrainOptions& options, std::vector<forest::Sequence> validation)
    : base_(base),
      trained_(std::move(trained)),
      adapted_(base, trained_->attach(base.linears())),
      optimizer_(options.optimizer, trained_->values(), trained_->rate_factors(options.optimizer)),
      examples_(std::move(examples)),
      validation_(std::move(validation)),
      options_(options) {
  if (examples_.empty()) fail(ErrorKind::kUsage, "adapter '{}' has no training examples", trained_->name());
  if (options.epochs < 1) fail(ErrorKind::kUsage, "epochs is {}; expected 1 or more", options.epochs);
  if (options.batch_size < 1) fail(ErrorKind::kUsage, "batch size is {}; expected 1 or more", options.batch_size);
  if (!(options.optimizer.learning_rate > 0 && options.optimizer.learning_rate <= 1e30)) {  // must fit a float
    fail(ErrorKind::kUsage, "`learning_rate` is {}; expected above 0 and at most 1e30", options.optimizer.learning_rate);
  }
  check_examples("training", examples_);
  check_examples("validation", validation_);
  for (const auto& example : examples_) num_tokens_ += static_cast<std::int64_t>(example.tokens.size());
  const auto count = static_cast<std::int64_t>(examples_.size());
  steps_per_epoch_ = (count - 1) / options.batch_size + 1;
  if (__builtin_mul_overflow(steps_per_epoch_, options.epochs, &num_steps_)) {
    fail(ErrorKind::kUsage, "epochs is {} and an epoch has {} steps; expected less than 2^63 steps in all", options.epochs,
         steps_per_epoch_);
  }
  prepare_backward(model());
  check_memory();
}

/// Tells what is trained which groups come, and numbers those of the sequences accordingly.
void Trainer::lay_out(std::vector<forest::Sequence>& sequences) {
  std::vector<std::int32_t> groups;
  if (!trained_->has_groups()) {
    for (auto& sequence : sequences) sequence.group = 0;
  }
  for (const auto& sequence : sequences) groups.push_back(sequence.group);
  std::ranges::sort(groups);
  const auto repeated = std::ranges::unique(groups);
  groups.erase(repeated.begin(), repeated.end());
  for (auto& sequence : sequences) {
    sequence.group = static_cast<std::int32_t>(std::ranges::lower_bound(groups, sequence.group) - groups.begin());
  }
  trained_->lay_out(groups);
}

void Trainer::check_examples(const char* what, const std::vector<forest::Sequence>& sequences) const {
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto size = static_cast<std::int64_t>(sequences[i].tokens.size());
    if (size > base_.spec().max_positions) {
      fail(ErrorKind::kUsage, "{} of the {} examples of adapter '{}' has {} tokens; the model's context is {}; lower `max_length`",
           forest::name_of(sequences[i], i), what, trained_->name(), size, base_.spec().max_positions);
    }
    if (options_.micro_batch_tokens > 0) split_batch({sequences[i]}, options_.micro_batch_tokens, options_.share_prefixes);
  }
}

/// Refuses batches for which there is not the memory: better now than killed later. The longest examples in one batch,
/// nothing shared, are a bound at no cost; where that is too much, the first epoch's batches are counted exactly.
void Trainer::check_memory() const {
  const auto available = options_.memory_limit ? options_.memory_limit : available_memory();
  if (!base_.placement().device.is_cpu() || !available) return;
  const auto bytes = [&](std::int64_t num_rows, std::int64_t num_targets) {
    return model::loss_gradient_bytes(adapted_, num_rows, num_targets, {.checkpoint_activations = options_.checkpoint_activations});
  };
  std::vector<std::int64_t> lengths;
  for (const auto& example : examples_) lengths.push_back(static_cast<std::int64_t>(example.tokens.size()));
  std::ranges::sort(lengths, std::greater());
  lengths.resize(std::min(lengths.size(), static_cast<std::size_t>(options_.batch_size)));
  const auto longest = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  if (bytes(longest, longest) <= *available) return;

  std::int64_t most_rows = 0, most_targets = 0;
  const auto order = epoch_order(0);
  for (std::size_t first = 0; first < order.size(); first += static_cast<std::size_t>(options_.batch_size)) {
    const auto last = std::min(first + static_cast<std::size_t>(options_.batch_size), order.size());
    std::vector<forest::Sequence> sequences;
    for (auto i = first; i < last; ++i) sequences.push_back(examples_[order[i]]);
    for (const auto& part : split_batch(std::move(sequences), options_.micro_batch_tokens, options_.share_prefixes)) {
      const auto batch = forest::build_batch(part, {.share_prefixes = options_.share_prefixes});
      most_rows = std::max(most_rows, batch.forest.num_rows());
      most_targets = std::max(most_targets, static_cast<std::int64_t>(batch.targets.size()));
    }
  }
  const auto needed = bytes(most_rows, most_targets);
  if (needed <= *available) return;
  constexpr double kMiB = 1 << 20;
  fail(ErrorKind::kUsage,
       "a batch of {} rows takes about {:.0f} MiB to train on, and {:.0f} MiB are left; give `micro_batch_tokens` or "
       "`checkpoint_activations=true`, or lower `batch_size` or `max_length`",
       most_rows, static_cast<double>(needed) / kMiB, static_cast<double>(*available) / kMiB);
}

std::vector<std::size_t> Trainer::epoch_order(std::int64_t epoch) const {
  std::vector<std::size_t> order(examples_.size());
  std::iota(order.begin(), order.end(), 0);
  RandomStream(options_.seed, format("order/{}/{}", trained_->name(), epoch)).shuffle(order);
  return order;
}

std::vector<std::size_t> Trainer::next_batch() const {
  const auto epoch = step() / steps_per_epoch_;
  if (epoch != order_epoch_) {
    order_ = epoch_order(epoch);
    order_epoch_ = epoch;
  }
  const auto first = static_cast<std::size_t>(step() % steps_per_epoch_ * options_.batch_size);
  const auto last = std::min(first + static_cast<std::size_t>(options_.batch_size), order_.size());
  return {order_.begin() + static_cast<std::ptrdiff_t>(first), order_.begin() + static_cast<std::ptrdiff_t>(last)};
}

std::int64_t Trainer::next_batch_tokens() const {
  std::int64_t tokens = 0;
  for (const auto i : next_batch()) tokens += static_cast<std::int64_t>(examples_[i].tokens.size());
  return tokens;
}

void Trainer::draw_dropout_masks(std::int64_t num_rows, std::size_t piece) {
  if (trained_->dropout() == 0) return;
  const double keep = 1 - trained_->dropout();
  trained_->set_dropout_masks([&](const std::string& path, std::int64_t width) {
    auto generator =
        at::detail::createCPUGenerator(derive_seed(options_.seed, format("dropout/{}/{}/{}/{}", trained_->name(), step(), piece, path)));
    auto mask = torch::empty({num_rows, width}, torch::kFloat).bernoulli_(keep, generator).div_(keep);
    return mask.to(base_.placement().device, base_.placement().dtype);
  });
}

/// Adds the gradient of the batch's loss.
Trainer::Computed Trainer::add_gradient(const std::vector<forest::Sequence>& sequences) {
  const auto whole = std::max<std::int64_t>(num_meant(sequences, options_.loss_mean), 1);
  Computed computed;
  std::size_t piece = 0;
  for (const auto& part : split_batch(sequences, options_.micro_batch_tokens, options_.share_prefixes)) {
    const auto batch = [&] {
      const StageTimer timer(Stage::kBatch);
      return forest::build_batch(part, {.share_prefixes = options_.share_prefixes});
    }();
    draw_dropout_masks(batch.forest.num_rows(), piece++);
    const auto targets = loss_targets(batch, options_.loss_mean, std::vector<std::int64_t>(part.size(), whole));
    computed.loss += model::add_loss_gradient(adapted_, model::forest_rows(batch.forest), targets,
                                              {.checkpoint_activations = options_.checkpoint_activations});
    computed.tokens += batch.num_tokens;
    computed.rows += batch.forest.num_rows();
  }
  return computed;
}

std::vector<forest::Sequence> Trainer::begin_step() {
  if (is_done()) fail(ErrorKind::kInternal, "training of '{}' is over", trained_->name());
  std::vector<forest::Sequence> sequences;
  for (const auto i : next_batch()) sequences.push_back(examples_[i]);
  trained_->gradient().zero_();
  return sequences;
}

void Trainer::run_step() {
  const double start = seconds_now();
  auto sequences = begin_step();
  trained_->set_noise(derive_seed(options_.seed, format("noise/{}/{}", trained_->name(), step())));
  lay_out(sequences);
  auto computed = add_gradient(sequences);
  trained_->collect();
  computed.seconds = seconds_now() - start;
  finish_step(computed);
}

void Trainer::finish_step(const Computed& computed) {
  const double start = seconds_now();
  if (!std::isfinite(computed.loss)) {
    fail(ErrorKind::kUsage, "the loss of adapter '{}' is {} at step {} of {}: training diverged; lower the learning rate ({})",
         trained_->name(), computed.loss, step() + 1, num_steps_, options_.optimizer.learning_rate);
  }
  const double rate = learning_rate(options_.optimizer, step(), num_steps_);
  const double grad_norm = [&] {
    const StageTimer timer(Stage::kOptimizer);
    return optimizer_.step(trained_->values(), trained_->gradient(), rate);
  }();
  if (!std::isfinite(grad_norm)) {
    fail(ErrorKind::kUsage, "the gradient of adapter '{}' is not finite at step {} of {}: training diverged; lower the learning rate ({})",
         trained_->name(), step() + 1, num_steps_, options_.optimizer.learning_rate);
  }
  ++stats_.steps;
  stats_.tokens += computed.tokens;
  stats_.rows += computed.rows;
  stats_.losses.push_back(computed.loss);
  stats_.seconds += computed.seconds + seconds_now() - start;
  const auto every = options_.validate_every > 0 ? options_.validate_every : steps_per_epoch_;
  if (!validation_.empty() && (step() % every == 0 || step() == num_steps_)) validate();
}

void Trainer::validate() {
  const auto whole = std::max<std::int64_t>(num_meant(validation_, options_.loss_mean), 1);
  double loss = 0;
  trained_->set_dropout_masks({});
  trained_->set_noise(std::nullopt);
  for (std::size_t first = 0; first < validation_.size(); first += static_cast<std::size_t>(options_.batch_size)) {
    const auto last = std::min(first + static_cast<std::size_t>(options_.batch_size), validation_.size());
    std::vector<forest::Sequence> some(validation_.begin() + static_cast<std::ptrdiff_t>(first),
                                       validation_.begin() + static_cast<std::ptrdiff_t>(last));
    lay_out(some);
    for (const auto& part : split_batch(some, options_.micro_batch_tokens, options_.share_prefixes)) {
      const auto batch = forest::build_batch(part);
      const auto targets = loss_targets(batch, options_.loss_mean, std::vector<std::int64_t>(part.size(), whole));
      loss += model::loss_of(model(), model::forest_rows(batch.forest), targets);
    }
  }
  const auto& all = stats_.validations;
  const bool is_best = std::ranges::none_of(all, [loss](const auto& before) { return before.loss <= loss; });
  stats_.validations.push_back({step(), loss});
  if (!is_best && best_values_.defined()) return;
  stats_.best_step = step();
  best_values_ = trained_->values().clone();
}

bool Trainer::has_lost_patience() const {
  if (options_.patience == 0 || stats_.validations.empty()) return false;
  return std::ranges::count_if(stats_.validations, [this](const auto& v) { return v.step > stats_.best_step; }) >= options_.patience;
}

adapters::LoraAdapter Trainer::adapter() const {
  const auto one = std::dynamic_pointer_cast<OneAdapter>(trained_);
  if (one == nullptr) fail(ErrorKind::kInternal, "what is trained as '{}' is not one adapter", trained_->name());
  return one->adapter(result());
}

void Trainer::save(const std::filesystem::path& path, const std::string& key) const {
  write_checkpoint(path, key,
                   {.values = trained_->values(), .best_values = best_values_, .optimizer = optimizer_.state(), .stats = stats_});
}

bool Trainer::restore(const std::filesystem::path& path, const std::string& key) {
  auto checkpoint = read_checkpoint(path, key, trained_->values(), num_steps_);
  if (!checkpoint) return false;
  const torch::NoGradGuard no_grad;
  auto best = checkpoint->best_values.defined() ? checkpoint->best_values.to(trained_->values().device()) : torch::Tensor();
  optimizer_.restore(checkpoint->optimizer);
  trained_->values().copy_(checkpoint->values);
  best_values_ = std::move(best);
  stats_ = std::move(checkpoint->stats);
  return true;
}

}  // namespace quiver::train
