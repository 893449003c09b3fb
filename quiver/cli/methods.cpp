#include <span>
#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/build_library.h"

namespace quiver::cli {
namespace {

/// What else makes or changes a library, by verb.
constexpr recipes::BuildRecipe kSteps[] = {
    {"train --full", "all weights of the base on the joint rows", "Ostapenko et al. 2024, FullFT"},
    {"cluster", "groups of tasks by k-means of the cosines of their adapters' factors", "Ostapenko et al. 2024, alg. 1"},
    {"cluster --similarity products", "the same of their updates, whatever the basis of the factors", "Quiver"},
    {"library add --assign", "a new adapter's task joins the group of the nearest adapters", "Quiver"},
};

/// Methods that go with others, by option.
constexpr recipes::BuildRecipe kOptions[] = {
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
nlohmann::json add_lines(const char* title, std::span<const recipes::BuildRecipe> lines, std::string& text) {
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

nlohmann::json line_json(const methods::Method& method) {
  return {{"name", method.usage()}, {"what", method.what}, {"source", method.source}, {"options", methods::options_json(method.options)}};
}

std::string line_text(const methods::Method& method) {
  const char* note = method.family != methods::Family::kLearnt && method.has("task_data") ? ", needs --task-data" : "";
  return format("  {:<18} {}\n  {:<18}   [{}]{}\n", method.usage(), method.what, "", method.source, note);
}

void list_all(bool json) {
  auto list = nlohmann::json::array(), adapting = nlohmann::json::array();
  std::string text;
  auto family = methods::Family::kMerge;
  for (const auto& method : methods::reuse_methods()) {
    if (text.empty() || method.family != family) {
      family = method.family;
      text += format("{}decided {}\n", text.empty() ? "" : "\n", methods::family_name(family));
    }
    text += line_text(method);
    list.push_back(line_json(method));
    list.back().update({{"family", methods::family_name(family)}, {"needs_task_data", method.has("task_data")}});
  }
  text += "\nlearning a new task from a library: names for adapt\n";
  for (const auto& method : methods::learning_methods()) {
    text += line_text(method);
    adapting.push_back(line_json(method));
    adapting.back()["needs_library"] = method.needs_library;
  }
  const auto building = add_lines("making a library: names for build --recipe, and train", recipes::build_recipes(), text);
  const auto steps = add_lines("making a library step by step: verbs", kSteps, text);
  const auto options = add_lines("going with others: options", kOptions, text);
  json ? print_json({{"methods", list}, {"adapt", adapting}, {"build", building}, {"steps", steps}, {"options", options}})
       : print_text(text);
}

/// One method with its options.
nlohmann::json describe(const methods::Method& method) {
  auto text = line_json(method);
  text.update({{"label", method.label}, {"family", methods::family_name(method.family)}});
  if (!method.needs.empty()) text["needs"] = method.needs;
  return text;
}

std::string description(const methods::Method& method) {
  const bool is_learnt = method.family == methods::Family::kLearnt;
  auto text = format("{}: {}\n  [{}]\n  {}\n", method.usage(), method.what, method.source,
                     is_learnt ? "learns a task: a name for adapt" : format("decides {}", methods::family_name(method.family)));
  if (!method.needs.empty()) text += format("  the adapters must agree on: {}\n", method.needs);
  for (const auto& option : methods::options_json(method.options)) {
    const auto flag = flag_of(option["name"].get<std::string>());
    text += format("\n  {}  {}", flag, option["type"].get<std::string>());
    if (option.contains("range")) text += ", " + option["range"].get<std::string>();
    if (const auto initial = option["default"].get<std::string>(); !initial.empty()) text += format(" (default: {})", initial);
    text += format("\n      {}\n", option["help"].get<std::string>());
    if (option.contains("needs")) text += format("      read with {} only\n", flag_of(option["needs"].get<std::string>()));
  }
  return text;
}

/// Ways of using a library come first; a name of adapt may be one of these, too.
void show_one(const std::string& name, bool json) {
  std::vector<const methods::Method*> found;
  for (const auto all : {methods::reuse_methods(), methods::learning_methods()}) {
    for (const auto& method : all) {
      if (method.name == name || method.usage() == name) found.push_back(&method);
    }
  }
  if (found.empty()) methods::reuse_method(name);  // says which is near
  auto list = nlohmann::json::array();
  std::string text;
  for (const auto* method : found) {
    list.push_back(describe(*method));
    text += (text.empty() ? "" : "\n") + description(*method);
  }
  json ? print_json({{"methods", list}}) : print_text(text);
}

}  // namespace

/// quiver methods [NAME]
void add_methods_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  auto name = std::make_shared<std::string>();
  auto* command = app.add_subcommand(
      "methods",
      "List the ways of making a library, of using it (names for --method and, with KIND- before them, for eval), and of adapting from it");
  command->add_flag("--json", *json, "Results as JSON");
  command->add_option("name", *name, "Show this method alone, with its options, their defaults and ranges");
  command->callback([json, name] { name->empty() ? list_all(*json) : show_one(*name, *json); });
}

}  // namespace quiver::cli
