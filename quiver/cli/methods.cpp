#include <span>
#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/recipes/adapt.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::cli {
namespace {

/// Appends a section to `text`; the lines as JSON. A name too long for its column has a line of its own.
nlohmann::json add_lines(const char* title, std::span<const recipes::MethodLine> lines, std::string& text) {
  constexpr std::size_t kColumn = 18;
  auto list = nlohmann::json::array();
  text += format("\n{}\n", title);
  for (const auto& line : lines) {
    const std::string name = line.name;
    text += name.size() > kColumn ? format("  {}\n  {:<18} {}\n", name, "", line.what) : format("  {:<18} {}\n", name, line.what);
    text += format("  {:<18}   [{}]\n", "", line.source);
    list.push_back({{"name", line.name}, {"what", line.what}, {"source", line.source}});
  }
  return list;
}

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
  const auto building = add_lines("making a library: names for build --recipe, and train", recipes::build_recipes(), text);
  const auto steps = add_lines("making a library step by step: verbs", recipes::build_steps(), text);
  const auto options = add_lines("going with others: options", recipes::method_options(), text);
  json ? print_json({{"methods", list}, {"adapt", adapting}, {"build", building}, {"steps", steps}, {"options", options}})
       : print_text(text);
}

}  // namespace

/// quiver methods
void add_methods_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand(
      "methods",
      "List the ways of making a library, of using it (names for --method and, with KIND- before them, for eval), and of adapting from it");
  command->add_flag("--json", *json, "Results as JSON");
  command->callback([json] { run(*json); });
}

}  // namespace quiver::cli
