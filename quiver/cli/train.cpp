#include "quiver/base/error.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"

namespace quiver::cli {
namespace {

struct Options {
  CommonOptions common;
  TrainingArguments training;
  std::string shared;
};

void run(const Options& options) {
  const auto setup = options.training.resolve(options.common.seed);
  const auto base = options.common.load();
  auto library = library::Library::open_or_create(options.training.library, {base.llama.config().name, base.llama.fingerprint()});
  TerminalProgress progress;
  std::vector<recipes::TrainedAdapter> trained;
  if (options.shared.empty()) {
    trained = recipes::train_private(base, library, setup, progress);
  } else {
    trained.push_back(recipes::train_adapter(base, library, options.shared, library::AdapterKind::kShared, "", setup.tasks, setup, progress));
  }
  const auto summary = recipes::training_summary(trained);
  if (options.common.json) {
    print_json(summary);
    return;
  }
  for (const auto& adapter : trained) {
    print_text(format("{:<60} {:>8} tokens {:>7.0f} tokens/s  loss {:.3f} -> {:.3f}{}\n", adapter.name, adapter.stats.tokens,
                      adapter.stats.seconds > 0 ? static_cast<double>(adapter.stats.tokens) / adapter.stats.seconds : 0.0,
                      adapter.stats.losses.empty() ? 0.0 : adapter.stats.losses.front(),
                      adapter.stats.losses.empty() ? 0.0 : adapter.stats.losses.back(), adapter.is_new ? "" : "  (was there)"));
  }
}

}  // namespace

/// quiver train --library DIR [--data DIR --tasks a,b|all --shared NAME ...]
void add_train_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("train", "Train one private adapter per task, or with --shared one adapter on all of them");
  add_common_options(*command, options->common);
  add_training_options(*command, options->training);
  command->add_option("--shared", options->shared, "Train one adapter of this name on the joint rows of the tasks");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
