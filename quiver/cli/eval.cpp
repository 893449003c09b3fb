#include <unistd.h>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/tasks.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/recipes/evaluate.h"
#include "quiver/recipes/machine.h"
#include "quiver/report/text_table.h"

namespace quiver::cli {
namespace {

struct EvalOptions {
  CommonOptions common;
  recipes::EvalSetup setup;
  std::string data = "data";
  std::string train_tasks, instruction_tasks, choice_sets;
  std::string methods;
  std::string output;
  std::string work;
  bool force = false;
};

recipes::EvalSection section(const std::filesystem::path& folder, const std::string& tasks, std::int64_t rows) {
  if (tasks.empty()) return {};
  return {folder, data::select_tasks(folder, tasks), rows};
}

std::vector<std::string> split(const std::string& names) {
  std::vector<std::string> list;
  for (std::size_t begin = 0; begin < names.size();) {
    const auto end = std::min(names.find(',', begin), names.size());
    if (end > begin) list.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

void run(EvalOptions& options) {
  auto& setup = options.setup;
  const std::filesystem::path data = options.data;
  // An empty list of tasks leaves a section out.
  setup.train = section(data / "train", options.train_tasks, setup.train.max_rows);
  setup.instruction = section(data / "heldout_sni", options.instruction_tasks, setup.instruction.max_rows);
  setup.choice = section(data / "heldout_mc", options.choice_sets, setup.choice.max_rows);
  setup.seed = options.common.seed;
  const bool has_adapters = !setup.choice_of_adapters.adapter.empty() || !setup.choice_of_adapters.library.empty();
  setup.methods = options.methods == "all" ? recipes::eval_methods() : split(options.methods);
  if (setup.methods.empty()) setup.methods = has_adapters ? std::vector<std::string>{"base", "given"} : std::vector<std::string>{"base"};
  if (!options.output.empty()) {
    if (!options.force && std::filesystem::exists(options.output))
      fail(ErrorKind::kUsage, "'{}' exists already; --force overwrites it", options.output);
    setup.work = options.output + ".parts";
  }
  if (!options.work.empty()) setup.work = options.work;
  const auto base = options.common.load();
  TerminalProgress progress;
  auto results = recipes::evaluate(base, setup, progress);
  results["machine"] = recipes::describe_machine();
  if (!options.output.empty()) {
    write_output(options.output, io::dump_json(results, options.output, 1) + "\n", options.force);
    if (options.work.empty()) io::remove_tree(setup.work);
  }
  if (options.common.json) {
    results.erase("samples");
    print_json(results);
  } else {
    print_text(report::render_text_table(results, isatty(STDOUT_FILENO) == 1 ? terminal_width(STDOUT_FILENO) : 100));
  }
}

}  // namespace

/// quiver eval --library L --methods all --train-tasks a,b --instruction-tasks all --choice-sets all --output results.json
void add_eval_command(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  auto* command = app.add_subcommand(
      "eval", "Methods x tasks: NLL and Rouge-L on training tasks and on held-out ones, accuracy on multiple choice");
  add_common_options(*command, options->common);
  add_format_options(*command, options->common);
  add_adapter_options(*command, options->setup.choice_of_adapters);
  command->add_option("--methods", options->methods,
                      "all, or some of base, shared, KIND-METHOD (private-arrow, cluster-mean, ...; 'quiver methods'), KIND-oracle, and "
                      "given: what --adapter or --library and --method say (default: base and given)");
  command->add_option("--data", options->data, "Folder with train/, heldout_sni/ and heldout_mc/")->capture_default_str();
  command->add_option("--train-tasks", options->train_tasks, "Tasks of train/ whose test rows to use: names, or all");
  command->add_option("--instruction-tasks", options->instruction_tasks, "Tasks of heldout_sni/: names, or all");
  command->add_option("--choice-sets", options->choice_sets, "Sets of heldout_mc/: names, or all");
  command->add_option("--max-train-rows", options->setup.train.max_rows, "Per task (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--max-instruction-rows", options->setup.instruction.max_rows, "Per task (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--max-choice-rows", options->setup.choice.max_rows, "Per set (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("!--no-generation", options->setup.generates, "Likelihoods only: no answers, no Rouge-L, a fraction of the time");
  command->add_option("--max-new-tokens", options->setup.max_new_tokens, "Longest answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--output", options->output,
                      "Results with per-sample records, as JSON; an interrupted run goes on from OUTPUT.parts");
  command->add_option("--work", options->work,
                      "Keep finished parts in this folder instead, so that another run with the same settings is instant");
  command->add_flag("--force", options->force, "Overwrite the output");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
