#include "quiver/library/library.h"

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/methods/load_adapter.h"
#include "quiver/recipes/assign_group.h"

namespace quiver::cli {
namespace {

struct LibraryOptions {
  CommonOptions common;
  std::string library;
  std::string name;
  std::string folder;
  std::vector<std::string> folders;
  std::vector<std::string> tasks;
  bool allow_other_base = false;
  bool force = false;
  bool assign = false;
  bool report = false;
};

nlohmann::json entry_json(const library::AdapterEntry& entry) {
  return {{"name", entry.name},
          {"kind", library::kind_name(entry.info.kind)},
          {"tasks", entry.info.tasks},
          {"group", entry.info.group},
          {"rank", entry.rank},
          {"sha256", entry.sha256},
          {"config_sha256", entry.config_sha256},
          {"as_given", entry.is_as_given},
          {"created", entry.info.created},
          {"training", entry.info.training}};
}

nlohmann::json report_json(const adapters::LoadReport& report) {
  auto projections = nlohmann::json::array();
  for (const auto& [path, rank, alpha, scaling, kind, dtype] : report.projections) {
    projections.push_back({{"path", path}, {"rank", rank}, {"alpha", alpha}, {"scaling", scaling}, {"kind", kind}, {"dtype", dtype}});
  }
  return {{"projections", projections}, {"whole", report.whole}, {"unused", report.unused}};
}

nlohmann::json assignment_json(const std::vector<cluster::GroupSimilarity>& groups) {
  nlohmann::json similarities = nlohmann::json::object();
  for (const auto& group : groups) similarities[group.group] = {{"mean", group.mean}, {"cosines", group.cosines}};
  return {{"group", groups.front().group}, {"similarities", similarities}};
}

void list(LibraryOptions& options) {
  const auto library = library::Library::open(options.library);
  auto adapters = nlohmann::json::array();
  std::string text;
  for (const auto& [name, entry] : library.adapters()) {
    adapters.push_back(entry_json(entry));
    text += format("{:<60} {:<9} rank {:<3} {}\n", name, library::kind_name(entry.info.kind), entry.rank, entry.info.group);
  }
  const nlohmann::json base = {{"name", library.base().name}, {"fingerprint", library.base().fingerprint}};
  print_result(options.common, {{"base", base}, {"adapters", adapters}, {"groups", library.groups()}}, text);
}

void show(LibraryOptions& options) {
  const auto library = library::Library::open(options.library);
  auto entry = entry_json(library.at(options.name));
  if (options.report) entry["report"] = report_json(adapters::load_report(library.load(options.name)));
  print_text(entry.dump(options.common.json ? -1 : 2) + "\n");
}

/// Adapters that are read, checked and added at once: their tensors are in memory meanwhile.
constexpr std::size_t kAddedAtOnce = 128;

/// A PEFT folder as it is; a LoRA file of llama.cpp becomes one.
library::GivenAdapter read_given(const LibraryOptions& options, const methods::BaseModel& base, const std::string& folder) {
  const library::Base of_library{base.lm.spec().name, base.lm.fingerprint()};
  if (methods::is_gguf_file(folder)) {
    library::GivenAdapter given{.adapter = methods::load_adapter(base, folder)};
    if (auto warning = methods::check_fits_base(given.adapter, base, options.allow_other_base))
      given.warnings.push_back(*std::move(warning));
    given.adapter.base_model = of_library.name;
    given.adapter.base_fingerprint = of_library.fingerprint;
    if (!options.name.empty()) given.adapter.name = options.name;
    return given;
  }
  auto given = library::read_given(folder, of_library, base.lm.linears(), options.allow_other_base, methods::outer_sizes(base.lm));
  if (!options.name.empty()) given.adapter.name = options.name;
  return given;
}

void add(LibraryOptions& options) {
  const bool is_one = options.folders.size() == 1;
  for (const auto& [flag, is_used] :
       {std::pair("--name", !options.name.empty()), {"--tasks", !options.tasks.empty()}, {"--assign", options.assign}}) {
    if (!is_one && is_used) fail(ErrorKind::kUsage, "{} is of one adapter, not of {}", flag, options.folders.size());
  }
  const auto base = options.common.load({.folders = options.folders});
  auto progress = options.common.progress();
  const library::AdapterInfo info{.kind = library::AdapterKind::kImported, .tasks = options.tasks};
  auto entries = nlohmann::json::array();
  std::string text;
  std::vector<library::GivenAdapter> given;
  for (std::size_t i = 0; i < options.folders.size(); ++i) {
    given.push_back(read_given(options, base, options.folders[i]));
    for (const auto& warning : given.back().warnings) progress.message(warning);
    if (given.size() < kAddedAtOnce && i + 1 < options.folders.size()) continue;
    auto library = library::Library::open_or_create(options.library, {base.lm.spec().name, base.lm.fingerprint()});
    std::vector<cluster::GroupSimilarity> groups;  // nearest first
    if (options.assign)
      groups = recipes::add_and_assign(library, given.front(), info, options.force);
    else
      library.add(given, info, options.force);
    for (const auto& [folder, adapter, sha256, warnings] : given) {
      entries.push_back(entry_json(library.at(adapter.name)));
      text += format("added '{}' to {}\n", adapter.name, options.library);
    }
    if (options.assign) entries.back()["assigned"] = assignment_json(groups);
    for (const auto& group : groups) {
      text += format("  {:<6} mean cosine {:.3f} with {} adapters{}\n", group.group, group.mean, group.cosines.size(),
                     group.group == groups.front().group ? ", joined" : "");
    }
    given.clear();
  }
  print_result(options.common, is_one ? entries.front() : nlohmann::json{{"added", entries}}, text);
}

void remove(LibraryOptions& options) {
  auto library = library::Library::open(options.library);
  library.remove(options.name);
  if (options.common.json) print_json({{"removed", options.name}});
}

void verify(LibraryOptions& options) {
  const auto findings = library::Library::open(options.library).verify();
  auto rows = nlohmann::json::array();
  std::string text;
  for (const auto& [where, message] : findings) {
    rows.push_back({{"where", where}, {"message", message}});
    text += where + ": " + message + "\n";
  }
  print_result(options.common, {{"findings", rows}}, findings.empty() ? "all is well\n" : text);
  if (!findings.empty()) fail(ErrorKind::kMismatch, "library '{}' has {} faults", options.library, findings.size());
}

void export_adapter(LibraryOptions& options) {
  library::Library::open(options.library).export_adapter(options.name, options.folder, options.force);
  if (options.common.json) print_json({{"path", options.folder}});
}

}  // namespace

/// quiver library ls|show|add|remove|verify|export
void add_library_command(CLI::App& app) {
  auto* command = app.add_subcommand("library", "List, show, add, remove, verify and export the adapters of a library");
  command->require_subcommand(1);
  const auto verb = [command](const char* name, const char* description, void (*run)(LibraryOptions&), Reads reads = Reads::kNothing) {
    const auto made = add_verb<LibraryOptions>(*command, name, description, reads, run);
    made.first.add_option("--library", made.second.library, "Library folder")->required();
    return made;
  };
  verb("ls", "The adapters, a line each", list);
  const auto [show_verb, show_options] = verb("show", "All that is known of one adapter", show);
  show_verb.add_option("name", show_options.name, "Adapter")->required();
  show_verb.add_flag("--report", show_options.report,
                     "Also what was read of its files: rank and scaling of every projection, and what is unused");
  const auto [add_verb, add_options] = verb("add", "Copy adapters into the library, which is made if need be", add, Reads::kBase);
  add_verb.add_option("folder", add_options.folders, "PEFT adapter folders, or LoRA files of llama.cpp (.gguf)")->required();
  add_verb.add_option("--name", add_options.name, "The name of one in the library (default: the folder's)");
  add_verb.add_option("--tasks", add_options.tasks, "Tasks it serves")->delimiter(',');
  add_verb.add_flag("--allow-other-base", add_options.allow_other_base, "Although it was made for another base model");
  add_verb.add_flag("--assign", add_options.assign,
                    "Put its tasks into the library's group whose adapters are most like it; trains nothing: 'quiver build --recipe "
                    "clusters --force' does, that group's adapter alone");
  add_verb.add_flag("--force", add_options.force, "Replace an adapter of this name");
  const auto [remove_verb, remove_options] = verb("remove", "Delete one adapter", remove);
  remove_verb.add_option("name", remove_options.name, "Adapter")->required();
  verb("verify", "Check every file: hashes, shapes, finite numbers, strays", verify);
  const auto [export_verb, export_options] = verb("export", "Write one adapter as a PEFT folder elsewhere", export_adapter);
  export_verb.add_option("name", export_options.name, "Adapter")->required();
  export_verb.add_option("folder", export_options.folder, "Folder to make")->required();
  export_verb.add_flag("--force", export_options.force, "Replace an adapter folder");
}

}  // namespace quiver::cli
