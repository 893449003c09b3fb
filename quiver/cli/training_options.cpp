#include "quiver/cli/training_options.h"

#include <initializer_list>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/cli/choices.h"
#include "quiver/cli/unread_options.h"
#include "quiver/data/tasks.h"

namespace quiver::cli {

recipes::TrainingSetup TrainingArguments::resolve(std::uint64_t seed, bool is_shared) const {
  using train::LossMean, train::Schedule, adapters::LoraInit;
  auto resolved = setup;
  resolved.data = data;
  resolved.tasks = data::select_tasks(data, tasks);
  auto& train = resolved.train;
  train.seed = seed;
  const auto& recipe = is_paper ? recipes::kPaperRecipe : recipes::kRecipe;
  train.optimizer.learning_rate = learning_rate.value_or(is_shared ? recipe.shared_learning_rate : recipe.learning_rate);
  train.epochs = epochs.value_or(recipe.epochs);
  train.batch_size = batch_size.value_or(recipe.batch_size);
  train.loss_mean = choose<LossMean>("--loss-mean", loss_mean, {{"examples", LossMean::kExamples}, {"tokens", LossMean::kTokens}});
  train.optimizer.schedule = choose<Schedule>(
      "--schedule", schedule, {{"linear", Schedule::kLinear}, {"cosine", Schedule::kCosine}, {"constant", Schedule::kConstant}});
  train.share_prefixes =
      choose<bool>("--share-prefixes", share_prefixes, {{"auto", setup.lora.dropout == 0}, {"on", true}, {"off", false}});
  resolved.init = choose<LoraInit>("--init", init, {{"mttl", LoraInit::kMttl}, {"peft", LoraInit::kPeft}});
  for (const auto& [flag, value] : {std::pair("--patience", train.patience), std::pair("--validate-every", train.validate_every)}) {
    if (value > 0 && setup.max_valid == 0) fail(ErrorKind::kUsage, "{} {} needs rows to validate on: give --validate ROWS", flag, value);
  }
  return resolved;
}

data::TrainOn TrainingArguments::resolve_train_on() const {
  return choose<data::TrainOn>("--train-on", train_on, {{"all", data::TrainOn::kAll}, {"last", data::TrainOn::kLast}});
}

void check_training_options(const CLI::App& command, const TrainingArguments& arguments, const TrainingUse& use) {
  const auto refuse = [&](bool is_read, std::initializer_list<const char*> options, const char* readers) {
    refuse_unread(command, is_read, options, readers, use.chosen);
  };
  refuse(use.trains,
         {"--paper", "--epochs", "--batch-size", "--lr", "--warmup", "--schedule", "--weight-decay", "--max-grad-norm", "--loss-mean",
          "--train-on", "--share-prefixes", "--micro-batch-tokens", "--checkpoint-activations", "--validate", "--validate-every",
          "--patience", "--checkpoint-seconds"},
         "trainings by gradient");
  refuse_unread(command, use.epochs_from.empty(), {"--epochs"}, "trainings whose epochs no other option says", use.epochs_from);
  refuse(use.makes_lora, {"--rank", "--alpha", "--rslora", "--dora", "--target-modules", "--init"}, "trainings of a new LoRA");
  refuse(use.trains_factors, {"--lora-plus"}, "trainings of LoRA factors");
  refuse(use.has_inputs, {"--dropout"}, "trainings of LoRAs");
  refuse(use.trains_private, {"--together"}, "trainings of private adapters");
  const bool needs_epochs = use.epochs_from.empty() && !arguments.epochs, needs_rate = use.paper_sets_rate && !arguments.learning_rate;
  if (is_given(command, "--paper") && !needs_epochs && !needs_rate && arguments.batch_size)
    fail(ErrorKind::kUsage, "--paper sets what --epochs, --batch-size and --lr leave open, and they leave nothing open; leave it out");
}

void add_training_options(CLI::App& command, TrainingArguments& arguments) {
  command.add_option("--data", arguments.data, "Folder of task files, NAME.jsonl or NAME.jsonl.zst");
  command.add_option("--tasks", arguments.tasks, "Task names separated by commas, or all");
  command.add_option("--library", arguments.library, "Library folder to train into; made if it does not exist")->required();
  add_training_settings(command, arguments);
}

void add_training_settings(CLI::App& command, TrainingArguments& arguments) {
  auto& setup = arguments.setup;
  auto& optimizer = setup.train.optimizer;
  command.add_option("--max-examples", setup.max_examples, "Training rows per task (0: all)")->check(at_least(0));
  command.add_option("--data-share", setup.data_share, "Of those rows, use this share: 0.1, 0.005, ...")->check(between(0, 1));
  command.add_option("--max-length", setup.max_length, "Tokens of an example; longer ones are cut from the left")
      ->check(between(2, 1 << 20));
  using recipes::kPaperRecipe, recipes::kRecipe;
  command.add_flag("--paper", arguments.is_paper,
                   "Take learning rate, epochs and batch size from Ostapenko et al. 2024 where they are not given");
  command
      .add_option("--epochs", arguments.epochs,
                  format("Passes over the rows (default: {}; --paper: {})", kRecipe.epochs, kPaperRecipe.epochs))
      ->check(at_least(1));
  command
      .add_option("--batch-size", arguments.batch_size,
                  format("Examples per step (default: {}; --paper: {})", kRecipe.batch_size, kPaperRecipe.batch_size))
      ->check(at_least(1));
  command
      .add_option("--lr", arguments.learning_rate,
                  format("Peak learning rate (default: {}, of a shared adapter {}; --paper: {})", kRecipe.learning_rate,
                         kRecipe.shared_learning_rate, kPaperRecipe.learning_rate))
      ->check(above(0));
  command.add_option("--warmup", optimizer.warmup_fraction, "Share of the steps with rising rate")->check(between(0, 1));
  command.add_option("--schedule", arguments.schedule, "Of the rate after warm-up: linear or cosine, both to 0, or constant");
  command.add_option("--lora-plus", optimizer.lora_plus_ratio, "LoRA+: rate of lora_b over that of lora_a")->check(above(0));
  command.add_option("--weight-decay", optimizer.weight_decay, "AdamW's decoupled weight decay")->check(at_least(0));
  command.add_option("--max-grad-norm", optimizer.max_grad_norm, "Clips the gradient's norm (0: never)")->check(at_least(0));
  command.add_option("--rank", setup.lora.rank, "r of every LoRA")->check(at_least(1));
  command.add_option("--alpha", setup.lora.alpha, "Scaling is alpha / r")->check(above(0));
  command.add_option("--dropout", setup.lora.dropout, "Of each LoRA's input")->check(between(0, 0.99));
  command.add_flag("--rslora", setup.lora.use_rslora, "Scaling is alpha / sqrt(r)");
  command.add_flag("--dora", setup.lora.use_dora, "Train the norm of each row of the adapted weight too (DoRA)");
  command.add_option("--target-modules", setup.lora.target_modules, "Projections to adapt, by last name")->delimiter(',');
  command.add_option("--init", arguments.init, "Bound of the initial lora_a: mttl (the paper's code) or peft");
  command.add_option("--loss-mean", arguments.loss_mean, "A batch's loss is the mean over its examples, or its tokens");
  command
      .add_option("--train-on", arguments.train_on, "Of a conversation, learn all messages of the assistant or the last alone: all or last")
      ->excludes("--no-chat");
  command.add_option("--share-prefixes", arguments.share_prefixes,
                     "Compute common prefixes of a batch once: on, off, or auto, which is on without dropout");
  command
      .add_option("--micro-batch-tokens", setup.train.micro_batch_tokens,
                  "Compute a step's batch in pieces of at most so many tokens (0: at once); same gradient, less memory")
      ->check(at_least(0));
  command.add_flag("--checkpoint-activations", setup.train.checkpoint_activations, "Compute activations twice instead of keeping them");
  command
      .add_option("--validate", setup.max_valid,
                  "Keep the adapter of the lowest loss on so many validation rows of each task (0: the last one)")
      ->check(at_least(0));
  command.add_option("--validate-every", setup.train.validate_every, "Steps between validations (0: an epoch)")->check(at_least(0));
  command.add_option("--patience", setup.train.patience, "Stop after so many validations without a better one (0: never)")
      ->check(at_least(0));
  command
      .add_option("--together", setup.together,
                  "Private adapters trained in one batch, each with its own steps: for batches too small for the machine")
      ->check(at_least(1));
  command.add_option("--checkpoint-seconds", setup.checkpoint_seconds, "Between checkpoints")->check(at_least(0));
  command.add_flag("--force", setup.force, "Train again what the library holds with other settings");
}

}  // namespace quiver::cli
