#include <ATen/Parallel.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"
#include "quiver/cli/unread_options.h"
#include "quiver/recipes/full_tuning.h"

namespace quiver::cli {
namespace {

struct TrainOptions {
  CommonOptions common;
  TrainingArguments training;
  std::string shared;
  std::string full;
  bool profile = false;
};

/// Thread-seconds by stage; the rest is waiting, copying and what is not counted.
nlohmann::json profile_json(double seconds, int threads) {
  nlohmann::json stages = nlohmann::json::object();
  double counted = 0;
  for (std::size_t i = 0; i < kStageNames.size(); ++i) {
    const double spent = Profile::seconds(static_cast<Stage>(i));
    stages[std::string(kStageNames[i])] = spent;
    counted += spent;
  }
  stages["waiting and the rest"] = std::max(seconds * threads - counted, 0.0);
  return {{"seconds", seconds}, {"threads", threads}, {"thread_seconds", stages}};
}

std::string profile_text(const nlohmann::json& profile) {
  const double all = profile["seconds"].get<double>() * profile["threads"].get<double>();
  auto text = format("\n{:.1f} s of training on {} threads:\n", profile["seconds"].get<double>(), profile["threads"].get<int>());
  for (const auto& [name, seconds] : profile["thread_seconds"].items()) {
    text += format("  {:<28} {:>5.1f} %\n", name, all > 0 ? 100 * seconds.get<double>() / all : 0.0);
  }
  return text;
}

/// Every option is read by what is trained.
void check_options(const CLI::App& command, const TrainOptions& options) {
  TrainingUse use{.chosen = "adapters of one task each", .trains_private = true};
  if (!options.shared.empty()) use = {.chosen = "--shared"};
  if (!options.full.empty())
    use = {.chosen = "--full", .makes_lora = false, .trains_factors = false, .has_inputs = false, .paper_sets_rate = false};
  check_training_options(command, options.training, use);
  refuse_unread(command, options.full.empty(), {"--library", "--shared", "--profile"}, "trainings of adapters", use.chosen);
  if (options.full.empty() && options.training.library.empty()) fail(ErrorKind::kUsage, "--library is required: the library to train into");
}

void run_full(const TrainOptions& options, const recipes::TrainingSetup& setup) {
  const auto base = options.common.load({}, options.training.resolve_train_on());
  auto progress = options.common.progress();
  const auto result = recipes::full_fine_tuning(base, setup, options.full, progress);
  const auto& training = result["training"];
  print_result(options.common, result,
               format("{}: {} parameters, {} steps, {:.0f} tokens/s, loss {:.3f} -> {:.3f}\n", options.full,
                      result["parameters"].get<std::int64_t>(), training["steps"].get<std::int64_t>(),
                      training["tokens_per_second"].get<double>(), training.value("first_loss", 0.0), training.value("last_loss", 0.0)));
}

void run(TrainOptions& options) {
  auto setup = options.training.resolve(options.common.seed, !options.shared.empty());
  if (!options.full.empty()) {  // all weights move: the paper's small rate
    if (!options.training.learning_rate) setup.train.optimizer.learning_rate = recipes::kPaperRecipe.learning_rate;
    return run_full(options, setup);
  }
  if (options.profile) Profile::enable();
  const auto base =
      options.common.load({.target_modules = options.training.setup.lora.target_modules}, options.training.resolve_train_on());
  auto library = library::Library::open_or_create(options.training.library, {base.lm.spec().name, base.lm.fingerprint()});
  auto progress = options.common.progress();
  std::vector<recipes::TrainedAdapter> trained;
  if (options.shared.empty()) {
    trained = recipes::train_private(base, library, setup, progress);
  } else {
    trained.push_back(recipes::train_adapter(base, library, options.shared, {.kind = library::AdapterKind::kShared, .tasks = setup.tasks},
                                             setup, progress));
  }
  auto summary = recipes::training_summary(trained);
  if (options.profile) {
    double seconds = 0;
    for (const auto& adapter : trained) seconds += adapter.is_new ? adapter.stats.seconds : 0;
    summary["profile"] = profile_json(seconds, at::get_num_threads());
  }
  std::string text;
  for (const auto& adapter : trained) {
    text += format("{:<60} {:>8} tokens {:>7.0f} tokens/s  loss {:.3f} -> {:.3f}{}\n", adapter.name, adapter.stats.tokens,
                   adapter.stats.seconds > 0 ? static_cast<double>(adapter.stats.tokens) / adapter.stats.seconds : 0.0,
                   adapter.stats.losses.empty() ? 0.0 : adapter.stats.losses.front(),
                   adapter.stats.losses.empty() ? 0.0 : adapter.stats.losses.back(), adapter.is_new ? "" : "  (was there)");
  }
  if (options.profile) text += profile_text(summary["profile"]);
  print_result(options.common, summary, text);
}

}  // namespace

/// quiver train --library DIR [--data DIR --tasks a,b|all --shared NAME ...]
void add_train_command(CLI::App& app) {
  auto [command, options] = add_verb<TrainOptions>(
      app, "train", "Train one private adapter per task, with --shared one adapter on all of them, or with --full the model itself",
      Reads::kText, run);
  add_training_options(command, options.training);
  command.add_option("--shared", options.shared, "Train one adapter of this name on the joint rows of the tasks");
  command.add_option("--full", options.full,
                     "Fine-tune the model itself on the joint rows, all its linear maps, into this new Hugging Face folder");
  command.add_flag("--profile", options.profile, "Show where the time of a step goes, by stage");
  command.get_option("--library")->required(false);
  command.parse_complete_callback([&command, &options] { check_options(command, options); });
}

}  // namespace quiver::cli
