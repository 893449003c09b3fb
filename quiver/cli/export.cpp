#include "quiver/recipes/export.h"

#include "quiver/base/error.h"
#include "quiver/cli/choices.h"
#include "quiver/cli/command.h"
#include "quiver/methods/load_adapter.h"
#include "quiver/methods/table.h"

namespace quiver::cli {
namespace {

using recipes::ExportForm;

struct ExportVerb {
  CommonOptions common;
  AdapterOptions adapters;
  std::string output, form = "peft", type;
  bool force = false;
};

recipes::ExportOptions choice_of(const ExportVerb& options) {
  using io::GgufType;
  recipes::ExportOptions choice{.force = options.force};
  choice.form = choose<ExportForm>(
      "--format", options.form,
      {{"peft", ExportForm::kPeft}, {"gguf-lora", ExportForm::kGgufLora}, {"hf", ExportForm::kHuggingFace}, {"gguf", ExportForm::kGguf}});
  if (!options.type.empty()) {
    choice.type = choose<GgufType>(
        "--type", options.type, {{"f32", GgufType::kF32}, {"f16", GgufType::kF16}, {"bf16", GgufType::kBF16}, {"q8_0", GgufType::kQ8_0}});
  }
  return choice;
}

struct Chosen {
  adapters::LoraAdapter adapter;
  adapters::CardFacts facts;
};

/// The adapter folder, or the adapter that a merge or a name makes of a library; nothing where neither is given.
std::optional<Chosen> chosen_adapter(const ExportVerb& options, const methods::BaseModel& base, Progress& progress) {
  const auto& source = options.adapters.source;
  const auto use = options.adapters.use();
  std::optional<Chosen> chosen;
  if (!source.adapter.empty()) {
    chosen = {methods::load_adapter(base, source.adapter), {}};
  } else if (!source.library.empty()) {
    const auto library = library::Library::open(source.library);
    const auto* argument = use.method.row().argument();
    const auto names = argument == nullptr ? methods::library_members(library, source)
                                           : std::vector{use.method.options.at(argument->name).get<std::string>()};
    chosen = {methods::merged_adapter(base, library, use), recipes::card_facts(library, names)};
  }
  if (!chosen) return chosen;
  if (const auto warning = methods::check_fits_base(chosen->adapter, base, source.allow_other_base)) progress.message(*warning);
  return chosen;
}

void run(ExportVerb& options) {
  const auto choice = choice_of(options);
  const bool is_adapter = choice.form == ExportForm::kPeft || choice.form == ExportForm::kGgufLora;
  const bool has_adapter = !options.adapters.source.adapter.empty() || !options.adapters.source.library.empty();
  if (is_adapter && !has_adapter) fail(ErrorKind::kUsage, "--format {} is of an adapter: give --adapter or --library", options.form);
  if (!options.adapters.source.library.empty()) methods::expect_merge(options.adapters.use().method.row());
  recipes::check_export(options.output, choice);
  if (options.common.dtype == "auto") options.common.dtype = "float32";  // rounded once, when written
  auto base = options.common.load({options.adapters.source});
  auto progress = options.common.progress();
  const auto chosen = chosen_adapter(options, base, progress);
  // Adapters are read in their own form, models written in that of their checkpoint.
  if (!is_adapter && methods::fusion_for(options.common.base, {options.adapters.source}) != model::Fusion::kAsStored)
    base = options.common.load();
  const auto facts = chosen ? chosen->facts : adapters::CardFacts();
  const auto result = is_adapter ? recipes::export_adapter(base, chosen->adapter, facts, choice, options.output)
                                 : recipes::export_model(base, chosen ? &chosen->adapter : nullptr, facts, choice, options.output);
  if (result.contains("warning")) progress.message("warning: " + result["warning"].get<std::string>());
  print_result(options.common, result, format("wrote {} ({}, {})\n", options.output, options.form, result["type"].get<std::string>()));
}

}  // namespace

/// quiver export --adapter A --format gguf-lora --output FILE
void add_export_command(CLI::App& app) {
  auto [command, options] = add_verb<ExportVerb>(
      app, "export", "Write an adapter, or the base with an adapter in its weights, for PEFT, transformers or llama.cpp", Reads::kBase,
      run);
  options.adapters.method = "mean";
  add_adapter_options(command, options.adapters);
  add_former_temperature(command, options.adapters.flags);
  command.add_option("--output", options.output, "The folder or .gguf file to write")->required();
  command.add_option("--format", options.form,
                     "peft and gguf-lora: the adapter; hf and gguf: the base with the adapter merged, or without one the base alone");
  command.add_option("--type", options.type, "Of the numbers: f32, f16, bf16, and for gguf q8_0");
  command.add_flag("--force", options.force, "Replace what an export wrote there");
}

}  // namespace quiver::cli
