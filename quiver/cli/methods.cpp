#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
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
  json ? print_json({{"methods", list}}) : print_text(text);
}

}  // namespace

/// quiver methods
void add_methods_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("methods", "List the ways of using a library: names for --method and, with KIND- before them, for eval");
  command->add_flag("--json", *json, "Results as JSON");
  command->callback([json] { run(*json); });
}

}  // namespace quiver::cli
