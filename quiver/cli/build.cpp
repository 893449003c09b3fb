#include "quiver/cli/cluster_options.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"

namespace quiver::cli {
namespace {

struct Options {
  CommonOptions common;
  TrainingArguments training;
  ClusterArguments cluster;
  std::string recipe = "mbc";
  std::int64_t cluster_epochs = 0;
  std::int64_t shared_epochs = 0;
};

void append(std::vector<recipes::TrainedAdapter>& all, std::vector<recipes::TrainedAdapter> more) {
  for (auto& adapter : more) all.push_back(std::move(adapter));
}

void run(const Options& options) {
  const bool with_mbc = options.recipe == "mbc";
  const bool with_clusters = with_mbc || options.recipe == "clusters";
  if (!with_clusters && options.recipe != "private" && options.recipe != "shared") {
    fail(ErrorKind::kUsage, "--recipe '{}' is not one of private, shared, mbc, clusters", options.recipe);
  }
  const auto setup = options.training.resolve(options.common.seed);
  const auto mbc = options.cluster.resolve(options.common.seed);
  const auto base = options.common.load();
  auto library = library::Library::open_or_create(options.training.library, {base.llama.config().name, base.llama.fingerprint()});
  TerminalProgress progress;
  std::vector<recipes::TrainedAdapter> trained;
  if (options.recipe == "shared") {
    auto shared = setup;
    if (options.shared_epochs > 0) shared.train.epochs = options.shared_epochs;
    trained.push_back(recipes::train_shared(base, library, shared, progress));
  } else if (options.recipe != "clusters") {
    append(trained, recipes::train_private(base, library, setup, progress));
  }
  nlohmann::json clusters;
  if (with_mbc) {
    const auto result = recipes::cluster_library(library, setup.tasks, mbc);
    clusters = recipes::to_json(result);
    progress.message(format("{} clusters of {} adapters, silhouette {:.3f}", mbc.num_clusters, setup.tasks.size(), result.silhouette));
  }
  if (with_clusters) {
    auto grouped = setup;
    if (options.cluster_epochs > 0) grouped.train.epochs = options.cluster_epochs;
    append(trained, recipes::train_clusters(base, library, grouped, progress));
  }
  auto summary = recipes::training_summary(trained);
  if (options.common.json) {
    if (with_mbc) summary["clusters"] = clusters;
    print_json(summary);
    return;
  }
  print_text(format("{}: {} adapters, {} tokens in {:.0f} s of training\n", options.training.library, trained.size(),
                    summary["total"]["tokens"].get<std::int64_t>(), summary["total"]["seconds"].get<double>()));
}

}  // namespace

/// quiver build --recipe private|shared|mbc|clusters --library DIR ...
void add_build_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("build", "A whole recipe into a library: private adapters, a shared one, or MBC with an adapter per cluster");
  add_common_options(*command, options->common);
  command->add_option("--recipe", options->recipe, "private, shared, mbc (private adapters, clustering, cluster adapters), or clusters (of the groups that are there)")
      ->capture_default_str();
  add_training_options(*command, options->training);
  add_cluster_options(*command, options->cluster);
  command->add_option("--cluster-epochs", options->cluster_epochs, "Epochs of the cluster adapters (default: --epochs)")
      ->check(CLI::PositiveNumber);
  command->add_option("--shared-epochs", options->shared_epochs, "Epochs of the shared adapter (default: --epochs)")
      ->check(CLI::PositiveNumber);
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
