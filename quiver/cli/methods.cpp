#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/recipes/adapt.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::cli {
namespace {

void run(bool json) {
  auto list = nlohmann::json::array();
  std::string text;
  auto family = recipes::ReuseFamily::kMerge;
  for (const auto& method : recipes::reuse_methods()) {
    if (text.empty() || method.family != family) {
      family = method.family;
      text += format("{}decided {}\n", text.empty() ? "" : "\n", recipes::family_name(family));
    }
    text += format("  {:<18} {}\n  {:<18}   [{}]{}\n", method.name, method.what, "", method.source,
                   method.needs_task_data ? ", needs --task-data" : "");
    list.push_back({{"name", method.name},
                    {"family", recipes::family_name(method.family)},
                    {"what", method.what},
                    {"source", method.source},
                    {"needs_task_data", method.needs_task_data}});
  }
  auto adapting = nlohmann::json::array();
  text += "\nlearning a new task from a library: names for adapt\n";
  for (const auto& method : recipes::adapt_methods()) {
    text += format("  {:<18} {}\n  {:<18}   [{}]\n", method.name, method.what, "", method.source);
    adapting.push_back({{"name", method.name}, {"what", method.what}, {"source", method.source}, {"needs_library", method.needs_library}});
  }
  auto building = nlohmann::json::array();
  text += "\nmaking a library: names for build --recipe, and train\n";
  for (const auto& recipe : recipes::build_recipes()) {
    text += format("  {:<18} {}\n  {:<18}   [{}]\n", recipe.name, recipe.what, "", recipe.source);
    building.push_back({{"name", recipe.name}, {"what", recipe.what}, {"source", recipe.source}});
  }
  auto steps = nlohmann::json::array();
  text += "\nmaking a library step by step: verbs\n";
  for (const auto& step : recipes::build_steps()) {
    text += format("  {}\n  {:<18} {}\n  {:<18}   [{}]\n", step.name, "", step.what, "", step.source);
    steps.push_back({{"name", step.name}, {"what", step.what}, {"source", step.source}});
  }
  json ? print_json({{"methods", list}, {"adapt", adapting}, {"build", building}, {"steps", steps}}) : print_text(text);
}

}  // namespace

/// quiver methods
void add_methods_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("methods", "List the ways of making a library, of using it (names for --method and, with KIND- before them, for eval), and of adapting from it");
  command->add_flag("--json", *json, "Results as JSON");
  command->callback([json] { run(*json); });
}

}  // namespace quiver::cli
