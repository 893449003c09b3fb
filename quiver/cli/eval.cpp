#include <unistd.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cli/choices.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/unread_options.h"
#include "quiver/diagnostics/machine.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/eval_folder.h"
#include "quiver/recipes/evaluate.h"
#include "quiver/report/text_table.h"
#include "quiver/tasks/select.h"

namespace quiver::cli {
namespace {

struct EvalOptions {
  CommonOptions common;
  recipes::EvalSetup setup;
  AdapterOptions adapters;
  tasks::Selection selection;
  std::string scoring = "lm-eval";
  std::string methods;
  std::string output;
  std::string work;
  bool force = false, resume = false, logs_samples = false;
};

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
  auto adapters = options.adapters;  // an option of libraries or adapters may be for those that methods name
  for (const auto& method : chosen) {
    if (method.path.empty()) continue;
    if (method.what == What::kOverKind && adapters.source.library.empty()) adapters.source = {.library = method.path};
    if (method.what == What::kAdapter && adapters.source.library.empty()) adapters.source.adapter = method.path;
  }
  adapters.source.allow_other_base = source.allow_other_base;
  check_adapter_options(command, adapters, uses);
}

/// The maps that the adapters of all methods adapt.
methods::NamedMaps named_maps(const EvalOptions& options) {
  using What = recipes::EvalMethod::What;
  methods::NamedMaps maps{.adapters = options.adapters.source};
  for (const auto& method : options.setup.methods) {
    if (method.what == What::kAdapter) maps.folders.push_back(method.path);
    if (method.what == What::kOverKind && !method.path.empty()) maps.libraries.push_back(method.path);
  }
  return maps;
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

/// Every option of tasks is read by one of those chosen.
void check_task_options(const CLI::App& command, const std::vector<tasks::EvalTask>& chosen) {
  using tasks::Kind;
  const auto has = [&](Kind kind) { return std::ranges::find(chosen, kind, &tasks::EvalTask::kind) != chosen.end(); };
  const bool has_answers = has(Kind::kAnswer) || has(Kind::kProgram);
  refuse_unread(command, has_answers, {"--no-generation", "--max-new-tokens", "--temperature", "--top-p", "--sampling-top-k"},
                "tasks with answers: sni, upstream, bbh, humaneval, mbpp",
                has(Kind::kText) ? "texts and multiple choice" : "multiple choice");
  const auto leaves = [&](auto setting) {
    return std::ranges::any_of(
        chosen, [&](const auto& task) { return (task.kind == Kind::kAnswer || task.kind == Kind::kProgram) && !(task.answers.*setting); });
  };
  constexpr const char* kOwn = "the tasks chosen, which have settings of their own";
  refuse_unread(command, leaves(&tasks::AnswerSettings::max_new_tokens), {"--max-new-tokens"}, "tasks that set no length", kOwn);
  refuse_unread(command, leaves(&tasks::AnswerSettings::temperature), {"--temperature"}, "tasks that set no temperature", kOwn);
  refuse_unread(command, leaves(&tasks::AnswerSettings::top_p), {"--top-p"}, "tasks that set no top-p", kOwn);
  refuse_unread(command, has(Kind::kProgram), {"--num-samples", "--python", "--program-seconds", "--unsafe-run-code"},
                "tasks with programs: humaneval, mbpp", "the tasks chosen");
  const bool has_forms = std::ranges::any_of(
      chosen, [](const auto& task) { return task.group == "bbh" || task.group == "humaneval" || task.group == "mbpp"; });
  refuse_unread(command, has(Kind::kChoice) || has_forms, {"--scoring"}, "multiple choice, bbh, humaneval and mbpp", "the tasks chosen");
}

/// Whether results go into a folder: a name that neither ends in .json nor is a stream.
bool names_folder(const std::string& output) { return is_file(output) && !output.ends_with(".json"); }

/// Where results go, and where what is done is kept: told before the work what cannot be used.
void set_output(EvalOptions& options) {
  auto& work = options.setup.work;
  const bool is_folder = names_folder(options.output);
  if (is_folder) {
    std::filesystem::path folder = options.output;
    if (!folder.has_filename()) folder = folder.parent_path();  // of "results/"
    if (std::filesystem::exists(folder) && !std::filesystem::is_directory(folder))
      fail(ErrorKind::kUsage, "'{}' is a file; a folder was expected (a file's name ends in .json)", folder.string());
  }
  if (!is_folder) {
    check_output(options.output, OutputForm::kResults, options.force);
    refuse_unread(*options.common.command, false, {"--resume", "--log-samples"}, "an --output that is a folder",
                  "an output that is a file");
  }
  if (!options.work.empty()) {
    work = options.work;
  } else if (is_folder) {
    work = std::filesystem::path(options.output) / "parts";
  } else if (is_file(options.output)) {
    work = io::beside(options.output, ".parts");
  }
  const io::WorkFolder usable(work);
}

void write_results(const EvalOptions& options, const results::Results& results) {
  if (names_folder(options.output)) {
    recipes::write_folder(options.output, results, options.setup.tasks, options.logs_samples);
  } else if (!options.output.empty()) {
    const auto text = io::dump_json(results::to_json(results), options.output, 1) + "\n";
    write_output(options.output, text, OutputForm::kResults, options.force);
    if (options.work.empty()) io::WorkFolder(options.setup.work).remove();
  }
}

void run(EvalOptions& options) {
  set_output(options);
  auto& setup = options.setup;
  setup.seed = options.selection.seed = options.common.seed;
  setup.rows.scoring = choose<recipes::ChoiceScoring>(
      "--scoring", options.scoring, {{"lm-eval", recipes::ChoiceScoring::kLmEval}, {"paper", recipes::ChoiceScoring::kPaper}});
  if (setup.rows.scoring == recipes::ChoiceScoring::kPaper) options.selection.prompts = tasks::Prompts::kPaper;
  setup.tasks = tasks::select_tasks(options.selection);
  check_task_options(*options.common.command, setup.tasks);
  set_methods(options);
  recipes::check_setup(setup);
  recipes::move_unseen_tasks(setup);
  const auto base = options.common.load(named_maps(options));
  if (names_folder(options.output)) {
    using recipes::FolderUse;
    const auto use = options.force ? FolderUse::kForce : options.resume ? FolderUse::kResume : FolderUse::kNew;
    recipes::begin_folder(options.output, recipes::describe_run(base, setup), use);
  }
  auto progress = options.common.progress();
  auto results = recipes::evaluate(base, setup, progress);
  const auto machine = diagnostics::describe_machine();
  for (const auto& [key, value] : machine.items()) results.machine.emplace_back(key, value.get<std::string>());
  write_results(options, results);
  if (options.common.json) {
    results.samples.clear();
    auto document = results::to_json(results);
    document.erase("samples");
    print_json(document);
  } else {
    print_text(report::render_text_table(results, isatty(STDOUT_FILENO) == 1 ? terminal_width(STDOUT_FILENO) : 100));
  }
}

/// How generated programs are run.
void add_program_options(CLI::App& command, recipes::ProgramRunner& programs) {
  command.add_option("--python", programs.python, "The Python that runs generated programs");
  command.add_option("--program-seconds", programs.limits.wall_seconds, "The longest time that a program may take")->check(above(0));
  command.add_flag_callback(
      "--unsafe-run-code", [&programs] { programs.isolation = sandbox::Isolation::kNone; },
      "Run generated programs without a sandbox: they may read, write and send whatever you may");
}

}  // namespace

/// quiver eval --library L --methods all --tasks upstream,sni,mc --limit 8 --output results.json
void add_eval_command(CLI::App& app) {
  auto [command, options] = add_verb<EvalOptions>(
      app, "eval", "Methods x tasks: NLL and Rouge-L on training tasks and on held-out ones, accuracy on multiple choice", Reads::kText,
      run);
  add_base_weights_option(command, options.common);
  add_adapter_options(command, options.adapters);
  command.parse_complete_callback([&command, &options] { check_options(command, options); });
  command.add_option(
      "--methods", options.methods,
      "all, or some of base, shared, KIND-METHOD (private-arrow, cluster-mean(merge_rank=8), ...; 'quiver methods'), KIND-oracle, "
      "adapter@FOLDER, and given: what --adapter or --library and --method say; of another library, KIND-METHOD@LIBRARY (default: base "
      "and given)");
  command
      .add_option(
          "--tasks", options.selection.names,
          "Tasks, separated by commas: upstream, sni, mc, bbh, humaneval, mbpp, paper (the ten of the paper), or one of a group's: piqa, "
          "bbh/navigate, ...; or files: mine.jsonl, mine.yaml, text.txt")
      ->required();
  command.add_option("--data", options.selection.data, "Folder with train/, heldout_sni/, heldout_mc/ and heldout_gen/");
  command
      .add_option("--limit", options.selection.limits,
                  "Rows of each task, drawn by --seed: 8, or by name mc=24,piqa=40; 0 is all (default: all)")
      ->delimiter(',');
  command.add_option("--num-fewshot", options.selection.num_fewshot, "Solved examples before each prompt (default: the task's own)")
      ->check(at_least(0));
  command.add_option(
      "--scoring", options.scoring,
      "How choices are compared: lm-eval (acc, acc_norm and acc_bytes of lm-evaluation-harness), or paper (the mean over tokens "
      "and EOS; and the paper's prompts and sampling of bbh, humaneval and mbpp)");
  command.add_flag("!--no-generation", options.setup.rows.generates, "Likelihoods only: no answers, no Rouge-L, a fraction of the time");
  command.add_option("--max-new-tokens", options.setup.rows.max_new_tokens, "Longest answer, where the task does not say")
      ->check(at_least(1));
  command.add_option("--temperature", options.setup.sampling.temperature, "Of answers; 0 is greedy")->check(at_least(0));
  command.add_option("--top-p", options.setup.sampling.top_p, "The likeliest tokens of this total probability alone")->check(between(0, 1));
  command.add_option("--sampling-top-k", options.setup.sampling.top_k, "So many of the likeliest tokens alone (0: all)")
      ->check(at_least(0));
  command.add_option("--num-samples", options.setup.sampling.num_samples, "Programs for each prompt, for pass@k")->check(at_least(1));
  add_program_options(command, options.setup.programs);
  auto* output = command.add_option(
      "--output", options.output,
      "A folder for results, also in the shape of lm-evaluation-harness; or a file that ends in .json, with per-sample records, where an "
      "interrupted run goes on from OUTPUT.parts");
  command.add_flag("--log-samples", options.logs_samples, "Each sample into the folder, too, with what was asked and answered")
      ->needs(output);
  auto* resume =
      command.add_flag("--resume", options.resume, "Goes on with the run in the folder; further methods and tasks are added to it")
          ->needs(output);
  command.add_option("--work", options.work,
                     "Keep finished parts in this folder instead, so that another run with the same settings is instant");
  command.add_flag("--force", options.force, "Overwrite the output")->needs(output)->excludes(resume);
}

}  // namespace quiver::cli
