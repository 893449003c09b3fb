#include "quiver/recipes/adapt.h"

#include <algorithm>

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/cli/terminal.h"
#include "quiver/cli/training_options.h"
#include "quiver/cli/unread_options.h"
#include "quiver/data/tasks.h"
#include "quiver/io/folder.h"
#include "quiver/io/work_folder.h"

namespace quiver::cli {
namespace {

struct AdaptOptions {
  CommonOptions common;
  TrainingArguments training;
  recipes::AdaptSetup setup;
  std::string granularity = "projection";
  std::string objective = "rouge";
  std::string search = "cobyla";
  std::string output;
};

train::SearchMethod parse_search(const std::string& text) {
  if (text == "cobyla") return train::SearchMethod::kCobyla;
  if (text == "one-plus-one") return train::SearchMethod::kOnePlusOne;
  if (text == "cma-es") return train::SearchMethod::kCmaEs;
  fail(ErrorKind::kUsage, "--search '{}' is not one of cobyla, one-plus-one, cma-es", text);
}

/// Every option is read by the method.
void check_options(const CLI::App& command, const AdaptOptions& options) {
  const auto& setup = options.setup;
  const auto& method = setup.method;
  const auto is_one_of = [&](std::initializer_list<const char*> methods) { return std::ranges::find(methods, method) != methods.end(); };
  const auto chosen = "--method " + method;
  if (recipes::adapt_method(method).needs_library && options.training.library.empty())
    fail(ErrorKind::kUsage, "{} starts from a library: give --library", chosen);
  refuse_names_twice("--adapters", setup.members.names);
  refuse_kind_of_named(command);
  const auto refuse = [&](bool is_read, std::initializer_list<const char*> names, const char* readers) {
    refuse_unread(command, is_read, names, readers, chosen);
  };
  const bool is_pi = method == "pi-tuning", is_hub = method == "lorahub";
  const auto by = is_pi ? "fisher" : setup.retrieve > 0 ? setup.retrieve_by : "";
  const bool has_target = by == "weights" || by == "fisher";  // a LoRA that is trained on the task to compare adapters with
  refuse(method != "fresh", {"--library", "--adapters", "--kind", "--retrieve"}, "methods that start from a library");
  refuse(setup.retrieve > 0 && !is_pi, {"--retrieve-by"}, "--retrieve K, but for pi-tuning, which goes by fisher");
  refuse(by == "fisher", {"--task-data", "--task-samples"}, "--retrieve-by fisher and pi-tuning");
  refuse(is_one_of({"poly", "polyz", "mhr", "mhrz", "pi-tuning"}), {"--granularity"}, "poly, polyz, mhr, mhrz and pi-tuning");
  refuse(is_one_of({"mhr", "mhrz"}), {"--heads"}, "mhr and mhrz");
  refuse(is_one_of({"poly", "polyz", "mhr", "mhrz", "weights", "pi-tuning"}), {"--logit-lr"},
         "poly, polyz, mhr, mhrz, weights and pi-tuning");
  refuse(is_hub, {"--search", "--evaluations", "--objective", "--penalty", "--search-rows"}, "lorahub");
  refuse(is_hub && options.objective == "rouge", {"--max-new-tokens"}, "lorahub with --objective rouge");
  check_training_options(command, options.training,
                         {.chosen = chosen,
                          .trains = !is_hub || has_target,
                          .makes_lora = method == "fresh" || has_target,
                          .trains_factors = has_target || !is_one_of({"polyz", "mhrz", "weights", "lorahub"}),
                          .has_inputs = !is_hub || has_target});
}

recipes::AdaptSetup resolve(AdaptOptions& options) {
  auto setup = options.setup;
  setup.training = options.training.resolve(options.common.seed);
  if (setup.training.tasks.size() != 1)
    fail(ErrorKind::kUsage, "--task '{}' is {} tasks; give one", options.training.tasks, setup.training.tasks.size());
  setup.members.library = options.training.library;
  setup.unit = merge::parse_mix_unit(options.granularity);
  setup.search.method = parse_search(options.search);
  if (options.objective != "rouge" && options.objective != "loss") {
    fail(ErrorKind::kUsage, "--objective '{}' is not one of rouge, loss", options.objective);
  }
  setup.objective = options.objective == "rouge" ? recipes::SearchObjective::kRouge : recipes::SearchObjective::kLoss;
  setup.work = io::beside(options.output, ".parts");
  return setup;
}

void run(AdaptOptions& options) {
  const auto setup = resolve(options);
  library::check_may_write(options.output, options.training.setup.force);  // before the work
  const auto base = options.common.load(options.training.resolve_train_on());
  auto progress = options.common.progress();
  const auto adapted = recipes::adapt(base, setup, progress);
  adapters::save_peft(options.output, adapted.adapter, options.training.setup.force);
  io::WorkFolder(setup.work).remove();
  auto summary = adapted.summary;
  summary["path"] = options.output;
  if (options.common.json) {
    print_json(summary);
    return;
  }
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
  print_text(text + "\n");
}

}  // namespace

/// quiver adapt --library L --method mean --data DIR --task T --output DIR
void add_adapt_command(CLI::App& app) {
  auto options = std::make_shared<AdaptOptions>();
  options->training.data = "data/heldout_sni";
  auto* command =
      app.add_subcommand("adapt", "Learn a new task from some rows of it, starting from a library; makes one adapter, a PEFT folder");
  add_common_options(*command, options->common);
  add_format_options(*command, options->common);
  command->add_option("--data", options->training.data, "Folder of task files, NAME.jsonl or NAME.jsonl.zst")->capture_default_str();
  command->add_option("--task", options->training.tasks, "The task to adapt to")->required();
  command
      ->add_option("--method", options->setup.method,
                   "fresh, shared, mean, poly, polyz, mhr, mhrz, weights, lorahub or pi-tuning ('quiver methods')")
      ->capture_default_str();
  command->add_option("--library", options->training.library, "The library to start from (all but fresh)");
  command->add_option("--adapters", options->setup.members.names, "Adapters of the library to use (default: the private and imported ones)")
      ->delimiter(',');
  command->add_option("--kind", options->setup.members.kind, "Use the library's adapters of this kind: private, cluster, poly, ...");
  command->add_option("--output", options->output, "The PEFT folder to write; an interrupted run goes on from OUTPUT.parts")->required();
  command->add_option("--retrieve", options->setup.retrieve, "Use so many adapters, the nearest to the task (0: all; pi-tuning: 4)")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--retrieve-by", options->setup.retrieve_by, "What is near: random, weights (of a new LoRA of the task) or fisher")
      ->check(CLI::IsMember({"random", "weights", "fisher"}))
      ->capture_default_str();
  command->add_option("--granularity", options->granularity, "What shares one set of weights: projection, block, layer or model")
      ->capture_default_str();
  command->add_option("--heads", options->setup.num_heads, "mhr: blocks of a projection with weights of their own (default: 32)")
      ->check(at_least(1));
  command->add_option("--logit-lr", options->setup.logit_rate, "Peak learning rate of the weights' logits")
      ->check(above(0))
      ->capture_default_str();
  command->add_option("--search", options->search, "lorahub: cobyla (which LoraHub's nevergrad uses), one-plus-one or cma-es")
      ->capture_default_str();
  command->add_option("--evaluations", options->setup.search.max_evaluations, "lorahub: of the objective")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--objective", options->objective, "lorahub: rouge (of answers) or loss")->capture_default_str();
  command->add_option("--penalty", options->setup.penalty, "lorahub: of the weights' magnitude")->check(at_least(0))->capture_default_str();
  command->add_option("--search-rows", options->setup.search_rows, "lorahub: training rows of the objective (0: half of them)")
      ->check(at_least(0))
      ->capture_default_str();
  command->add_option("--max-new-tokens", options->setup.max_new_tokens, "lorahub: longest answer")
      ->check(at_least(1))
      ->capture_default_str();
  command->add_option("--task-data", options->setup.members.task_data, "fisher: folder of the adapters' tasks")->capture_default_str();
  command->add_option("--task-samples", options->setup.members.task_samples, "fisher: training rows of a task")
      ->check(at_least(1))
      ->capture_default_str();
  add_training_settings(*command, options->training);
  command->parse_complete_callback([command, options] { check_options(*command, *options); });
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
