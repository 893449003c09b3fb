#include <span>
#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/recipes/adapt.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::cli {
namespace {

/// What else makes or changes a library, by verb.
constexpr recipes::MethodLine kSteps[] = {
    {"train --full", "all weights of the base on the joint rows", "Ostapenko et al. 2024, FullFT"},
    {"cluster", "groups of tasks by k-means of the cosines of their adapters' factors", "Ostapenko et al. 2024, alg. 1"},
    {"cluster --similarity products", "the same of their updates, whatever the basis of the factors", "Quiver"},
    {"library add --assign", "a new adapter's task joins the group of the nearest adapters", "Quiver"},
};

/// Methods that go with others, by option.
constexpr recipes::MethodLine kOptions[] = {
    {"--general NAMES", "the mean of general adapters subtracted from the others first, exactly (--general-by-factors: as PEFT does)",
     "Bagherifard et al. 2025, GenKnowSub"},
    {"--combine params|outputs", "adapters that a token chose, mixed factor by factor or by what they add", "Ostapenko et al. 2024; PEFT"},
    {"--tie q_proj,k_proj,v_proj", "Arrow and its kin: projections of a block decide as one", "Ostapenko et al. 2024"},
    {"--merge-rank R", "any merge, compressed to a rank by its singular values", "Eckart and Young 1936"},
    {"adapt --retrieve N --retrieve-by random|weights|fisher", "of the library only the adapters nearest to the task",
     "Ostapenko et al. 2024; Wu et al. 2023"},
    {"build --budget-epochs E", "MBC under one budget of steps: 40 % for the private adapters, 60 % for the clusters'",
     "Ostapenko et al. 2024"},
};

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
  const auto steps = add_lines("making a library step by step: verbs", kSteps, text);
  const auto options = add_lines("going with others: options", kOptions, text);
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
