#include <algorithm>
#include <cmath>

#include "quiver/base/near.h"
#include "quiver/cli/cluster_options.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"
#include "quiver/cli/unread_options.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/group_tasks.h"
#include "quiver/recipes/train_skills.h"

namespace quiver::cli {
namespace {

struct BuildOptions {
  CommonOptions common;
  TrainingArguments training;
  ClusterArguments cluster;
  std::string recipe = "mbc";
  std::optional<std::int64_t> cluster_epochs, shared_epochs, budget_epochs;
  std::int64_t group_samples = 32;
  recipes::SkillSetup skills;
  std::string granularity = "projection";
  std::optional<std::int64_t> num_heads;
  std::optional<double> logit_rate;
};

/// The setup of Poly or MHR: the paper's settings where the user says nothing.
recipes::SkillSetup resolve_skills(const BuildOptions& options) {
  auto skills = options.skills;
  const bool is_mhr = options.recipe == "mhr";
  skills.kind = is_mhr ? library::AdapterKind::kMhr : library::AdapterKind::kPoly;
  skills.shape.unit = merge::parse_mix_unit(options.granularity);
  skills.shape.num_heads = is_mhr ? options.num_heads.value_or(32) : 1;
  skills.logit_rate = options.logit_rate.value_or(is_mhr ? 0.5 : 0.1);
  skills.initial_spread = is_mhr ? 0 : 1e-3;
  return skills;
}

void check_recipe(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& recipe : recipes::build_recipes()) {
    if (name == recipe.name) return;
    names.emplace_back(recipe.name);
  }
  fail(ErrorKind::kUsage, "no recipe '{}'{}; 'quiver methods' lists them", name, did_you_mean(name, names));
}

std::optional<recipes::Grouping> find_grouping(const std::string& recipe) {
  using recipes::Grouping;
  for (const auto grouping : {Grouping::kRandomTasks, Grouping::kHidden, Grouping::kTfIdf}) {
    if (recipe == recipes::grouping_name(grouping)) return grouping;
  }
  return std::nullopt;
}

/// Every option is read by the recipe.
void check_options(const CLI::App& command, const BuildOptions& options) {
  check_recipe(options.recipe);
  const auto is_one_of = [&](std::initializer_list<const char*> recipes) {
    return std::ranges::find(recipes, options.recipe) != recipes.end();
  };
  const auto chosen = "--recipe " + options.recipe;
  const auto refuse = [&](std::initializer_list<const char*> recipes, std::initializer_list<const char*> names) {
    std::string readers;
    for (const auto* recipe : recipes) readers += (readers.empty() ? "--recipe " : ", ") + std::string(recipe);
    refuse_unread(command, is_one_of(recipes), names, readers, chosen);
  };
  refuse({"mbc", "hidden", "tf-idf", "random-tasks", "random-examples"}, {"--num-clusters"});
  refuse({"mbc", "hidden", "tf-idf"}, {"--restarts"});
  refuse({"mbc"}, {"--sparsity", "--svd-components", "--similarity", "--budget-epochs"});
  refuse({"mbc", "clusters", "hidden", "tf-idf", "random-tasks"}, {"--cluster-epochs"});
  refuse({"shared"}, {"--shared-epochs"});
  refuse({"hidden", "tf-idf"}, {"--group-samples"});
  refuse({"poly", "mhr"}, {"--num-skills", "--granularity", "--sample-weights", "--logit-lr"});
  refuse({"mhr"}, {"--heads"});
  refuse_unread(command, options.recipe != "clusters", {"--tasks"}, "recipes that choose tasks",
                "--recipe clusters, whose groups name theirs");
  refuse_unread(command, !options.budget_epochs, {"--cluster-epochs"}, "builds of no budget", "--budget-epochs");
  std::string epochs_from;
  if (options.budget_epochs) epochs_from = "--budget-epochs";
  if (options.shared_epochs) epochs_from = "--shared-epochs";
  if (options.cluster_epochs && options.recipe != "mbc") epochs_from = "--cluster-epochs";
  check_training_options(command, options.training,
                         {.chosen = chosen, .trains_private = is_one_of({"private", "mbc"}), .epochs_from = epochs_from});
  if (options.training.setup.lora.use_dora && is_one_of({"mbc", "poly", "mhr"})) {
    fail(ErrorKind::kUnsupported, "--dora: a DoRA is used alone, and {} clusters or mixes what it trains; leave --dora out", chosen);
  }
}

void append(std::vector<recipes::TrainedAdapter>& all, std::vector<recipes::TrainedAdapter> more) {
  for (auto& adapter : more) all.push_back(std::move(adapter));
}

void run(BuildOptions& options) {
  const bool with_mbc = options.recipe == "mbc";
  const auto grouping = find_grouping(options.recipe);
  const bool with_clusters = with_mbc || options.recipe == "clusters" || grouping;
  const bool with_skills = options.recipe == "poly" || options.recipe == "mhr";
  auto setup = options.training.resolve(options.common.seed, options.recipe == "shared");
  auto cluster_epochs = options.cluster_epochs;
  if (const auto& budget = options.budget_epochs) {  // the paper's shares: 40 % for the private adapters, 60 % for those of the clusters
    setup.train.epochs = std::clamp<std::int64_t>(std::llround(0.4 * static_cast<double>(*budget)), 1, *budget - 1);
    cluster_epochs = *budget - setup.train.epochs;
  }
  const auto mbc = options.cluster.resolve(options.common.seed);
  if ((with_mbc || grouping) && mbc.num_clusters > static_cast<std::int64_t>(setup.tasks.size())) {
    fail(ErrorKind::kUsage, "--num-clusters {} for {} tasks: a cluster holds at least one", mbc.num_clusters, setup.tasks.size());
  }
  std::optional<recipes::SkillSetup> skills;
  if (with_skills) skills = resolve_skills(options);
  const auto base =
      options.common.load({.target_modules = options.training.setup.lora.target_modules}, options.training.resolve_train_on());
  auto library = library::Library::open_or_create(options.training.library, {base.lm.spec().name, base.lm.fingerprint()});
  auto progress = options.common.progress();
  std::vector<recipes::TrainedAdapter> trained;
  if (options.recipe == "shared") {
    auto shared = setup;
    shared.train.epochs = options.shared_epochs.value_or(setup.train.epochs);
    trained.push_back(recipes::train_shared(base, library, shared, progress));
  } else if (options.recipe == "random-examples") {
    append(trained, recipes::train_parts(base, library, setup, mbc.num_clusters, progress));
  } else if (grouping) {
    recipes::group_tasks(base, library, setup, *grouping, {.num_clusters = mbc.num_clusters, .seed = mbc.seed, .restarts = mbc.restarts},
                         options.group_samples, progress);
  } else if (skills) {
    append(trained, recipes::train_skills(base, library, setup, *skills, progress));
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
    grouped.train.epochs = cluster_epochs.value_or(setup.train.epochs);
    append(trained, recipes::train_clusters(base, library, grouped, progress));
  }
  auto summary = recipes::training_summary(trained);
  if (with_mbc) summary["clusters"] = clusters;
  print_result(options.common, summary,
               format("{}: {} adapters, {} tokens in {:.0f} s of training\n", options.training.library, trained.size(),
                      summary["total"]["tokens"].get<std::int64_t>(), summary["total"]["seconds"].get<double>()));
}

}  // namespace

/// quiver build --recipe NAME --library DIR ...
void add_build_command(CLI::App& app) {
  auto [command, options] = add_verb<BuildOptions>(
      app, "build",
      "A whole recipe into a library: private adapters, a shared one, MBC with an adapter per cluster, or skills that tasks mix",
      Reads::kText, run);
  command.add_option(
      "--recipe", options.recipe,
      "private, shared, mbc (private adapters, clustering, cluster adapters), clusters (of the groups that are there), poly, mhr, or "
      "another that 'quiver methods' lists");
  add_training_options(command, options.training);
  add_cluster_options(command, options.cluster);
  command.add_option("--cluster-epochs", options.cluster_epochs, "Epochs of the cluster adapters (default: --epochs)")->check(at_least(1));
  command.add_option("--shared-epochs", options.shared_epochs, "Epochs of the shared adapter (default: --epochs)")->check(at_least(1));
  command
      .add_option("--budget-epochs", options.budget_epochs,
                  "mbc: epochs in all, 40 % of them for the private adapters, 60 % for the clusters'")
      ->check(at_least(2));
  command.add_option("--group-samples", options.group_samples, "hidden, tf-idf: training rows that stand for a task")->check(at_least(1));
  command.add_option("--num-skills", options.skills.num_skills, "poly, mhr: skills that tasks mix")->check(at_least(1));
  command.add_option("--granularity", options.granularity, "poly, mhr: what shares one set of weights: projection, block, layer or model");
  command.add_option("--heads", options.num_heads, "mhr: blocks of a projection with weights of their own (default: 32)")
      ->check(at_least(1));
  command.add_flag("--sample-weights", options.skills.sample_weights,
                   "poly, mhr: draw the weights of every step from a relaxed Bernoulli distribution, as Ponti et al. 2023 train Poly");
  command.add_option("--logit-lr", options.logit_rate, "poly, mhr: peak learning rate of the tasks' logits (default: 0.1, mhr 0.5)")
      ->check(above(0));
  command.parse_complete_callback([&command, &options] { check_options(command, options); });
}

}  // namespace quiver::cli
