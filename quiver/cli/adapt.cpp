#include "quiver/recipes/adapt.h"

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/cli/method_flags.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"
#include "quiver/cli/unread_options.h"
#include "quiver/data/tasks.h"
#include "quiver/io/folder.h"
#include "quiver/io/work_folder.h"
#include "quiver/methods/table.h"

namespace quiver::cli {
namespace {

struct AdaptOptions {
  CommonOptions common;
  TrainingArguments training;
  recipes::AdaptSetup setup;
  MethodFlags flags;
  std::string output;
};

/// Every option is read by the method.
void check_options(const CLI::App& command, const AdaptOptions& options) {
  const auto& method = methods::learning_method(options.setup.method);
  const auto chosen = "--method " + method.name;
  if (method.needs_library && options.training.library.empty()) fail(ErrorKind::kUsage, "{} starts from a library: give --library", chosen);
  refuse_names_twice("--adapters", options.setup.members.names);
  refuse_kind_of_named(command);
  refuse_unread(command, method.needs_library, {"--library", "--adapters", "--kind"}, "methods that start from a library", chosen);
  const MethodValues read{&method, options.flags.values_for(method, methods::OptionValues::object())};
  refuse_unread_flags(options.flags, std::span(&read, 1), methods::learning_methods(), chosen);
  using methods::LearningStart;
  using methods::RetrieveBy;
  const auto plan = std::get<methods::MakePlan>(method.make)(read.values);
  const bool retrieves = plan.retrieve > 0 || plan.usual_retrieve > 0;
  // A LoRA that is trained on the task, to compare adapters with.
  const bool has_target = plan.adds_new_skill || (retrieves && plan.retrieve_by != RetrieveBy::kRandom);
  const bool is_search = plan.start == LearningStart::kSearch;
  const bool trains_factors = !is_search && (plan.start != LearningStart::kMixture || plan.trains_skills);
  check_training_options(command, options.training,
                         {.chosen = chosen,
                          .trains = !is_search || has_target,
                          .makes_lora = plan.start == LearningStart::kFresh || has_target,
                          .trains_factors = has_target || trains_factors,
                          .has_inputs = !is_search || has_target});
}

recipes::AdaptSetup resolve(AdaptOptions& options) {
  auto setup = options.setup;
  setup.training = options.training.resolve(options.common.seed);
  if (setup.training.tasks.size() != 1)
    fail(ErrorKind::kUsage, "--task '{}' is {} tasks; give one", options.training.tasks, setup.training.tasks.size());
  setup.members.library = options.training.library;
  setup.options = options.flags.values_for(methods::learning_method(setup.method), methods::OptionValues::object());
  setup.work = io::beside(options.output, ".parts");
  return setup;
}

void run(AdaptOptions& options) {
  const auto setup = resolve(options);
  library::check_may_write(options.output, options.training.setup.force);  // before the work
  const auto base = options.common.load({setup.members, setup.training.lora.target_modules}, options.training.resolve_train_on());
  auto progress = options.common.progress();
  const auto adapted = recipes::adapt(base, setup, progress);
  adapters::save_peft(options.output, adapted.adapter, options.training.setup.force);
  io::WorkFolder(setup.work).remove();
  auto summary = adapted.summary;
  summary["path"] = options.output;
  std::string text = format("{} adapted to {} by {}", options.output, setup.training.tasks.front(), setup.method);
  if (summary.contains("training")) {
    const auto& training = summary["training"];
    text += format(": {} steps, loss {:.3f} -> {:.3f}", training["steps"].get<std::int64_t>(), training.value("first_loss", 0.0),
                   training.value("last_loss", 0.0));
    if (training.contains("best_step"))
      text += format(", the best on validation rows after step {}", training["best_step"].get<std::int64_t>());
  }
  if (summary.contains("search")) {
    text += format(": {} evaluations, objective {:.4f}", summary["search"]["evaluations"].get<std::int64_t>(),
                   summary["search"]["value"].get<double>());
  }
  print_result(options.common, summary, text + "\n");
}

}  // namespace

/// quiver adapt --library L --method mean --data DIR --task T --output DIR
void add_adapt_command(CLI::App& app) {
  auto [command, options] = add_verb<AdaptOptions>(
      app, "adapt", "Learn a new task from some rows of it, starting from a library; makes one adapter, a PEFT folder", Reads::kText, run);
  options.training.data = "data/heldout_sni";
  command.add_option("--data", options.training.data, "Folder of task files, NAME.jsonl or NAME.jsonl.zst");
  command.add_option("--task", options.training.tasks, "The task to adapt to")->default_str("")->required();
  command.add_option("--method", options.setup.method,
                     "fresh, shared, mean, poly, polyz, mhr, mhrz, weights, lorahub or pi-tuning ('quiver methods')");
  command.add_option("--library", options.training.library, "The library to start from (all but fresh)");
  command.add_option("--adapters", options.setup.members.names, "Adapters of the library to use (default: the private and imported ones)")
      ->delimiter(',');
  command.add_option("--kind", options.setup.members.kind, "Use the library's adapters of this kind: private, cluster, poly, ...");
  command.add_option("--output", options.output, "The PEFT folder to write; an interrupted run goes on from OUTPUT.parts")->required();
  add_method_flags(command, methods::learning_methods(), options.flags);
  add_training_settings(command, options.training);
  command.parse_complete_callback([&command, &options] { check_options(command, options); });
}

}  // namespace quiver::cli
