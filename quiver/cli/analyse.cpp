#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"
#include "quiver/data/tasks.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/analyse.h"

namespace quiver::cli {
namespace {

using nlohmann::json;

struct AnalyseOptions {
  CommonOptions common;
  recipes::AnalysisSetup analysis;
  AdapterOptions adapters;
  std::string data = "data/train";
  std::string tasks;
};

recipes::AnalysisSetup resolve(const AnalyseOptions& options) {
  auto setup = options.analysis;
  setup.use = options.adapters.use();
  setup.data = options.data;
  setup.seed = options.common.seed;
  if (!options.tasks.empty()) setup.tasks = data::select_tasks(options.data, options.tasks);
  return setup;
}

void add_options(CLI::App& command, AnalyseOptions& options) {
  command.add_option("--data", options.data, "Folder of task files whose test rows to look at");
  command.add_option("--tasks", options.tasks, "Tasks: names, or all (default: those the adapters were trained on)");
  command.add_option("--rows", options.analysis.rows, "Test rows of each task")->check(at_least(1));
}

std::string figure(const json& value) { return value.is_number() ? format("{:>9.3f}", value.get<double>()) : format("{:>9}", "-"); }

void run_routing(AnalyseOptions& options) {
  const auto setup = resolve(options);
  methods::expect_routing(setup.use.method.row());
  const auto base = options.common.load({setup.use.source});
  auto progress = options.common.progress();
  const auto result = recipes::analyse_routing(base, setup, progress);
  std::string text = format("{:<44}  entropy  of ln N    margin agreement  own task\n",
                            format("{} over {} adapters", methods::text_of(setup.use.method), result["adapters"].size()));
  const auto row = [&](const std::string& name, const json& f) {
    text += format("{:<44}{}{}{} {}{}\n", name.size() > 44 ? name.substr(0, 44) : name, figure(f["entropy"]), figure(f["relative_entropy"]),
                   figure(f["margin"]), figure(f["agreement"]), figure(f["true_share"]));
  };
  for (const auto& task : result["tasks"]) row(task["name"], task);
  row("mean", result["mean"]);
  print_result(options.common, result, text);
}

void run_norms(AnalyseOptions& options) {
  const auto setup = resolve(options);
  const auto base = options.common.load({setup.use.source});
  auto progress = options.common.progress();
  const auto result = recipes::analyse_norms(base, setup, progress);
  std::string text = "norm of the own adapter's update over that of another (figure 5 of Ostapenko et al. 2024)\n";
  for (const auto& task : result["tasks"]) {
    const auto ratios = task["ratios"].get<std::vector<double>>();
    const auto [least, most] = std::ranges::minmax(ratios);
    text += format("{:<60} {:.3f} to {:.3f}\n", task["name"].get<std::string>(), least, most);
  }
  text += format("mean {:.4f}; above 1 for {:.0f} % of {} samples\n", result["mean"].get<double>(), 100 * result["above_one"].get<double>(),
                 result["num_samples"].get<std::int64_t>());
  print_result(options.common, result, text);
}

struct TransferOptions : AnalyseOptions {
  TrainingArguments training;
  recipes::TransferSetup setup;
};

void run_transfer(TransferOptions& options) {
  auto& setup = options.setup;
  options.training.data = options.data;
  setup.analysis = resolve(options);
  setup.analysis.use.source.library = options.training.library;
  setup.training = options.training.resolve(options.common.seed);
  const auto base =
      options.common.load({.target_modules = options.training.setup.lora.target_modules}, options.training.resolve_train_on());
  auto progress = options.common.progress();
  const auto result = recipes::analyse_transfer(base, setup, progress);
  std::string text = "  cosine      gain  of one adapter on both tasks over their own (figure 2 of Ostapenko et al. 2024)\n";
  for (const auto& pair : result["pairs"]) {
    text += format("{:>8.3f}  {:>8.3f}  {}, {}\n", pair["cosine"].get<double>(), pair["gain"].get<double>(),
                   pair["tasks"][0].get<std::string>(), pair["tasks"][1].get<std::string>());
  }
  text += format("correlation {:.3f}", result["correlation"].get<double>());
  if (result["interval"].is_array())
    text += format(" [{:.3f}, {:.3f}]", result["interval"][0].get<double>(), result["interval"][1].get<double>());
  print_result(options.common, result, text + "\n");
}

}  // namespace

/// quiver analyse routing|norms|transfer --library L
void add_analyse_command(CLI::App& app) {
  auto& command =
      *app.add_subcommand("analyse", "Figures about a library: how it is routed, whose adapter answers most, which tasks help each other");
  command.require_subcommand(1);
  auto [routing, routes] = add_verb<AnalyseOptions>(
      command, "routing", "Entropy, margin, agreement between layers and share of the right adapter, by task", Reads::kText, run_routing);
  add_options(routing, routes);
  add_library_options(routing, routes.adapters);
  add_former_temperature(routing, routes.adapters.flags);
  routing.get_option("--library")->required();
  auto [norms, ratios] =
      add_verb<AnalyseOptions>(command, "norms", "How much larger the update of a task's own adapter is than that of others, on its inputs",
                               Reads::kText, run_norms);
  add_options(norms, ratios);
  add_member_options(norms, ratios.adapters.source);
  norms.get_option("--library")->required();
  auto [transfer, options] = add_verb<TransferOptions>(
      command, "transfer", "Whether training on two tasks together gains the more, the more alike their adapters are", Reads::kText,
      run_transfer);
  transfer.add_option("--library", options.training.library, "The library of private adapters")->required();
  transfer.add_option("--data", options.data, "Folder of task files");
  transfer.add_option("--rows", options.analysis.rows, "Test rows of each task")->check(at_least(1));
  transfer.add_option("--pairs", options.setup.num_pairs, "Pairs of tasks, their likeness spread evenly")->check(at_least(1));
  transfer.add_option("--work", options.setup.work, "A library of the pairs' adapters; what it holds is not trained again")->required();
  add_training_settings(transfer, options.training);
  transfer.parse_complete_callback(
      [&transfer, &options] { check_training_options(transfer, options.training, {.chosen = "analyse transfer"}); });
}

}  // namespace quiver::cli
