#include <unistd.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/unread_options.h"
#include "quiver/data/tasks.h"
#include "quiver/diagnostics/machine.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/evaluate.h"
#include "quiver/report/text_table.h"

namespace quiver::cli {
namespace {

struct EvalOptions {
  CommonOptions common;
  recipes::EvalSetup setup;
  AdapterOptions adapters;
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

/// --methods, or what stands for it.
std::vector<std::string> chosen_names(const EvalOptions& options) {
  if (options.methods == "all") return recipes::eval_methods();
  if (auto names = methods::split_names(options.methods); !names.empty()) return names;
  const auto& source = options.adapters.source;
  if (source.adapter.empty() && source.library.empty()) return {"base"};
  return {"base", "given"};
}

/// The methods of these names, without the options that are given for all.
std::vector<recipes::EvalMethod> chosen_methods(const EvalOptions& options) {
  std::vector<recipes::EvalMethod> chosen;
  for (const auto& name : chosen_names(options)) chosen.push_back(recipes::parse_eval_method(name));
  return chosen;
}

/// Every option of adapters is read by one of the methods evaluated.
void check_options(const CLI::App& command, const EvalOptions& options) {
  using What = recipes::EvalMethod::What;
  const auto& source = options.adapters.source;
  const auto chosen = chosen_methods(options);
  if (std::ranges::find(chosen, What::kGiven, &recipes::EvalMethod::what) == chosen.end()) {
    for (const char* option : {"--adapter", "--method", "--adapters", "--kind"}) {
      if (is_given(command, option))
        fail(ErrorKind::kUsage, "{} is read by the evaluation method 'given', which --methods leaves out", option);
    }
  }
  std::vector<methods::MethodUse> uses;
  for (const auto& method : chosen) {
    if (method.what == What::kGiven && !source.library.empty()) uses.push_back(methods::parse_name(options.adapters.method).use);
    if (method.what == What::kOverKind) uses.push_back(method.use);
  }
  if (uses.empty()) uses.push_back({.name = "mean"});
  check_adapter_options(command, options.adapters, uses);
  const bool has_answers = !options.train_tasks.empty() || !options.instruction_tasks.empty();
  refuse_unread(command, has_answers, {"--no-generation", "--max-new-tokens"}, "--train-tasks and --instruction-tasks", "--choice-sets");
}

/// The methods with the options that are given for all, those that each has.
void set_methods(EvalOptions& options) {
  auto& setup = options.setup;
  setup.given = options.adapters.use();
  setup.methods = chosen_methods(options);
  for (auto& method : setup.methods) {
    if (method.what == recipes::EvalMethod::What::kOverKind) {
      method.use.options = options.adapters.flags.values_for(method.use.row(), method.use.options);
    }
  }
  for (const auto& method : methods::reuse_methods())
    setup.options.update(options.adapters.flags.values_for(method, methods::OptionValues::object()));
}

void run(EvalOptions& options) {
  auto& setup = options.setup;
  const std::filesystem::path data = options.data;
  // An empty list of tasks leaves a section out.
  setup.train = section(data / "train", options.train_tasks, setup.train.max_rows);
  setup.instruction = section(data / "heldout_sni", options.instruction_tasks, setup.instruction.max_rows);
  setup.choice = section(data / "heldout_mc", options.choice_sets, setup.choice.max_rows);
  setup.seed = options.common.seed;
  set_methods(options);
  check_output(options.output, OutputForm::kResults, options.force);
  if (!options.work.empty()) {
    setup.work = options.work;
  } else if (is_file(options.output)) {
    setup.work = io::beside(options.output, ".parts");
  }
  io::WorkFolder work(setup.work);  // what cannot be used is told before the work
  const auto base = options.common.load({options.adapters.source});
  auto progress = options.common.progress();
  auto results = recipes::evaluate(base, setup, progress);
  const auto machine = diagnostics::describe_machine();
  for (const auto& [key, value] : machine.items()) results.machine.emplace_back(key, value.get<std::string>());
  if (!options.output.empty()) {
    const auto text = io::dump_json(results::to_json(results), options.output, 1) + "\n";
    write_output(options.output, text, OutputForm::kResults, options.force);
    if (options.work.empty()) io::WorkFolder(setup.work).remove();
  }
  if (options.common.json) {
    results.samples.clear();
    auto document = results::to_json(results);
    document.erase("samples");
    print_json(document);
  } else {
    print_text(report::render_text_table(results, isatty(STDOUT_FILENO) == 1 ? terminal_width(STDOUT_FILENO) : 100));
  }
}

}  // namespace

/// quiver eval --library L --methods all --train-tasks a,b --instruction-tasks all --choice-sets all --output results.json
void add_eval_command(CLI::App& app) {
  auto [command, options] = add_verb<EvalOptions>(
      app, "eval", "Methods x tasks: NLL and Rouge-L on training tasks and on held-out ones, accuracy on multiple choice", Reads::kText,
      run);
  add_base_weights_option(command, options.common);
  add_adapter_options(command, options.adapters);
  add_former_temperature(command, options.adapters.flags);
  command.parse_complete_callback([&command, &options] { check_options(command, options); });
  command.add_option(
      "--methods", options.methods,
      "all, or some of base, shared, KIND-METHOD (private-arrow, cluster-mean(merge_rank=8), ...; 'quiver methods'), KIND-oracle, and "
      "given: what --adapter or --library and --method say (default: base and given)");
  command.add_option("--data", options.data, "Folder with train/, heldout_sni/ and heldout_mc/");
  const auto add_section = [&](const char* name, std::string& tasks, const char* help, const char* rows_name, std::int64_t& rows) {
    auto* section = command.add_option(name, tasks, help);
    command.add_option(rows_name, rows, "Rows of each (0: all)")->check(at_least(0))->needs(section);
  };
  add_section("--train-tasks", options.train_tasks, "Tasks of train/ whose test rows to use: names, or all", "--max-train-rows",
              options.setup.train.max_rows);
  add_section("--instruction-tasks", options.instruction_tasks, "Tasks of heldout_sni/: names, or all", "--max-instruction-rows",
              options.setup.instruction.max_rows);
  add_section("--choice-sets", options.choice_sets, "Sets of heldout_mc/: names, or all", "--max-choice-rows",
              options.setup.choice.max_rows);
  command.add_flag("!--no-generation", options.setup.generates, "Likelihoods only: no answers, no Rouge-L, a fraction of the time");
  command.add_option("--max-new-tokens", options.setup.max_new_tokens, "Longest answer")->check(at_least(1));
  command.add_option("--output", options.output, "Results with per-sample records, as JSON; an interrupted run goes on from OUTPUT.parts");
  command.add_option("--work", options.work,
                     "Keep finished parts in this folder instead, so that another run with the same settings is instant");
  command.add_flag("--force", options.force, "Overwrite the output")->needs("--output");
}

}  // namespace quiver::cli
