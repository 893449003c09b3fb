#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/unread_options.h"
#include "quiver/methods/table.h"

namespace quiver::cli {
namespace {

/// Options that say something of a library.
constexpr const char* kOfLibrary[] = {"--method", "--adapters", "--kind", "--general", "--general-by-factors"};

std::string listed(std::span<const methods::MethodUse> uses) {
  std::string text;
  for (const auto& use : uses) text += (text.empty() ? "" : ", ") + methods::text_of(use);
  return text;
}

/// Options that say which adapters of the library.
void check_members(const CLI::App& command, const methods::AdapterSource& source, std::span<const methods::MethodUse> uses) {
  refuse_names_twice("--adapters", source.names);
  refuse_names_twice("--general", source.general);
  for (const auto& name : source.general) {
    if (std::ranges::find(source.names, name) != source.names.end()) {
      fail(ErrorKind::kUsage, "'{}' is one of --general, which are subtracted, and of --adapters, which are used; name it in one of them",
           name);
    }
  }
  const bool is_mixed = std::ranges::any_of(uses, [](const auto& use) { return use.name == "task"; });
  if (!is_mixed) refuse_kind_of_named(command);
  if (uses.empty()) return;
  const bool has_members = std::ranges::any_of(uses, [](const auto& use) { return use.row().reads_members(); });
  constexpr const char* kReaders = "methods over several adapters";
  refuse_unread(command, has_members, {"--adapters", "--general", "--general-by-factors"}, kReaders, listed(uses));
  refuse_unread(command, has_members || is_mixed, {"--kind"}, kReaders, listed(uses));
}

}  // namespace

methods::AdapterUse AdapterOptions::use_of(const std::string& name) const {
  methods::AdapterUse use{.source = source};
  if (source.library.empty()) return use;
  const auto parsed = methods::parse_name(name);
  if (!parsed.kind.empty()) {
    if (!source.names.empty()) fail(ErrorKind::kUsage, "--adapters names the adapters, so that nothing reads '{}/'", parsed.kind);
    if (!source.kind.empty() && source.kind != parsed.kind)
      fail(ErrorKind::kUsage, "--kind {} and method '{}' are of two kinds of adapters", source.kind, name);
    use.source.kind = parsed.kind;
  }
  use.method = {.name = parsed.use.name, .options = flags.values_for(parsed.use.row(), parsed.use.options)};
  return use;
}

void check_adapter_options(const CLI::App& command, const AdapterOptions& options, std::span<const methods::MethodUse> uses) {
  const auto& source = options.source;
  if (!source.adapter.empty() && !source.library.empty())
    fail(ErrorKind::kUsage, "--adapter '{}' and --library '{}' exclude each other", source.adapter, source.library);
  if (source.library.empty()) {
    const auto refuse = [&](const std::string& option) {
      if (is_given(command, option.c_str()))
        fail(ErrorKind::kUsage, "{} is of a library, and no --library is given: nothing would read it", option);
    };
    for (const auto* option : kOfLibrary) refuse(option);
    for (const auto& [name, texts] : options.flags.texts) {
      if (!texts.empty()) fail(ErrorKind::kUsage, "`{}` is of a library, and no --library is given: nothing would read it", name);
    }
    if (source.adapter.empty() && source.allow_other_base)
      fail(ErrorKind::kUsage, "--allow-other-base is of adapters, and neither --adapter nor --library is given");
    return;
  }
  check_members(command, source, uses);
  if (uses.empty()) return;  // any method may follow
  std::vector<MethodValues> read;
  for (const auto& use : uses) read.push_back({&use.row(), options.flags.values_for(use.row(), use.options)});
  refuse_unread_flags(options.flags, read, methods::reuse_methods(), listed(uses));
}

void add_member_options(CLI::App& command, methods::AdapterSource& source) {
  command.add_option("--library", source.library, "A library of adapters");
  command.add_option("--adapters", source.names, "Adapters of the library to use (default: the private and imported ones)")->delimiter(',');
  command.add_option("--kind", source.kind, "Use the library's adapters of this kind: private, cluster, shared, imported, poly or mhr");
  auto* general = command.add_option("--general", source.general,
                                     "Subtract the mean of these adapters of the library from the others first (GenKnowSub)");
  general->delimiter(',');
  command.add_flag("--general-by-factors", source.general_by_factors, "Subtract factor by factor, as PEFT does, not exactly")
      ->needs(general);
  command.add_flag("--allow-other-base", source.allow_other_base, "Use adapters that were made for another base model");
  command.parse_complete_callback([&command, &source] { check_adapter_options(command, {.source = source}, {}); });
}

void add_library_options(CLI::App& command, AdapterOptions& options) {
  add_member_options(command, options.source);
  command.add_option(
      "--method", options.method,
      "How to use the library: lag, arrow, mean, oracle=NAME, or another that 'quiver methods' lists; with options of its own "
      "lag(shortlist=3), and of a kind cluster/lag");
  add_method_flags(command, methods::reuse_methods(), options.flags);
  command.parse_complete_callback([&command, &options] {
    if (options.source.library.empty()) return check_adapter_options(command, options, {});
    const auto use = methods::parse_name(options.method).use;
    check_adapter_options(command, options, std::span(&use, 1));
  });
}

void add_adapter_options(CLI::App& command, AdapterOptions& options) {
  command.add_option("--adapter", options.source.adapter, "One adapter: a PEFT folder, or a LoRA file of llama.cpp (.gguf)");
  add_library_options(command, options);
}

}  // namespace quiver::cli
