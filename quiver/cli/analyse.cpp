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
  add_common_options(command, options.common);
  add_format_options(command, options.common);
  command.add_option("--data", options.data, "Folder of task files whose test rows to look at")->capture_default_str();
  command.add_option("--tasks", options.tasks, "Tasks: names, or all (default: those the adapters were trained on)");
  command.add_option("--rows", options.analysis.rows, "Test rows of each task")->check(at_least(1))->capture_default_str();
}

std::string figure(const json& value) { return value.is_number() ? format("{:>9.3f}", value.get<double>()) : format("{:>9}", "-"); }

void run_routing(const AnalyseOptions& options) {
  const auto setup = resolve(options);
  methods::expect_routing(setup.use.method.row());
  const auto base = options.common.load();
  auto progress = options.common.progress();
  const auto result = recipes::analyse_routing(base, setup, progress);
  if (options.common.json) return print_json(result);
  std::string text = format("{:<44}  entropy  of ln N    margin agreement  own task\n",
                            format("{} over {} adapters", methods::text_of(setup.use.method), result["adapters"].size()));
  const auto row = [&](const std::string& name, const json& f) {
    text += format("{:<44}{}{}{} {}{}\n", name.size() > 44 ? name.substr(0, 44) : name, figure(f["entropy"]), figure(f["relative_entropy"]),
                   figure(f["margin"]), figure(f["agreement"]), figure(f["true_share"]));
  };
  for (const auto& task : result["tasks"]) row(task["name"], task);
  row("mean", result["mean"]);
  print_text(text);
}

void run_norms(const AnalyseOptions& options) {
  const auto setup = resolve(options);
  const auto base = options.common.load();
  auto progress = options.common.progress();
  const auto result = recipes::analyse_norms(base, setup, progress);
  if (options.common.json) return print_json(result);
  std::string text = "norm of the own adapter's update over that of another (figure 5 of Ostapenko et al. 2024)\n";
  for (const auto& task : result["tasks"]) {
    const auto ratios = task["ratios"].get<std::vector<double>>();
    const auto [least, most] = std::ranges::minmax(ratios);
    text += format("{:<60} {:.3f} to {:.3f}\n", task["name"].get<std::string>(), least, most);
  }
  text += format("mean {:.4f}; above 1 for {:.0f} % of {} samples\n", result["mean"].get<double>(), 100 * result["above_one"].get<double>(),
                 result["num_samples"].get<std::int64_t>());
  print_text(text);
}

struct TransferOptions {
  AnalyseOptions options;
  TrainingArguments training;
  recipes::TransferSetup setup;
};

void run_transfer(const TransferOptions& transfer) {
  auto setup = transfer.setup;
  setup.analysis = resolve(transfer.options);
  setup.analysis.use.source.library = transfer.training.library;
  auto training = transfer.training;
  training.data = transfer.options.data;
  setup.training = training.resolve(transfer.options.common.seed);
  const auto base = transfer.options.common.load(transfer.training.resolve_train_on());
  auto progress = transfer.options.common.progress();
  const auto result = recipes::analyse_transfer(base, setup, progress);
  if (transfer.options.common.json) return print_json(result);
  std::string text = "  cosine      gain  of one adapter on both tasks over their own (figure 2 of Ostapenko et al. 2024)\n";
  for (const auto& pair : result["pairs"]) {
    text += format("{:>8.3f}  {:>8.3f}  {}, {}\n", pair["cosine"].get<double>(), pair["gain"].get<double>(),
                   pair["tasks"][0].get<std::string>(), pair["tasks"][1].get<std::string>());
  }
  text += format("correlation {:.3f}", result["correlation"].get<double>());
  if (result["interval"].is_array())
    text += format(" [{:.3f}, {:.3f}]", result["interval"][0].get<double>(), result["interval"][1].get<double>());
  print_text(text + "\n");
}

}  // namespace

/// quiver analyse routing|norms|transfer --library L
void add_analyse_command(CLI::App& app) {
  auto* command =
      app.add_subcommand("analyse", "Figures about a library: how it is routed, whose adapter answers most, which tasks help each other");
  command->require_subcommand(1);
  auto routing = std::make_shared<AnalyseOptions>();
  auto* routes = command->add_subcommand("routing", "Entropy, margin, agreement between layers and share of the right adapter, by task");
  add_options(*routes, *routing);
  add_library_options(*routes, routing->adapters);
  add_former_temperature(*routes, routing->adapters.flags);
  routes->get_option("--library")->required();
  routes->callback([routing] { run_routing(*routing); });
  auto norms = std::make_shared<AnalyseOptions>();
  auto* ratios =
      command->add_subcommand("norms", "How much larger the update of a task's own adapter is than that of others, on its inputs");
  add_options(*ratios, *norms);
  add_member_options(*ratios, norms->adapters.source);
  ratios->get_option("--library")->required();
  ratios->callback([norms] { run_norms(*norms); });
  auto transfer = std::make_shared<TransferOptions>();
  auto* pairs =
      command->add_subcommand("transfer", "Whether training on two tasks together gains the more, the more alike their adapters are");
  add_common_options(*pairs, transfer->options.common);
  add_format_options(*pairs, transfer->options.common);
  pairs->add_option("--library", transfer->training.library, "The library of private adapters")->required();
  pairs->add_option("--data", transfer->options.data, "Folder of task files")->capture_default_str();
  pairs->add_option("--rows", transfer->options.analysis.rows, "Test rows of each task")->check(at_least(1))->capture_default_str();
  pairs->add_option("--pairs", transfer->setup.num_pairs, "Pairs of tasks, their likeness spread evenly")
      ->check(at_least(1))
      ->capture_default_str();
  pairs->add_option("--work", transfer->setup.work, "A library of the pairs' adapters; what it holds is not trained again")->required();
  add_training_settings(*pairs, transfer->training);
  pairs->parse_complete_callback([pairs, transfer] { check_training_options(*pairs, transfer->training, {.chosen = "analyse transfer"}); });
  pairs->callback([transfer] { run_transfer(*transfer); });
}

}  // namespace quiver::cli
