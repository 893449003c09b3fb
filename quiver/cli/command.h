// What the verbs share: options spelled alike, and how results come out.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "quiver/cli/method_flags.h"
#include "quiver/cli/ranges.h"
#include "quiver/cli/terminal.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/methods/base_model.h"
#include "quiver/model/generate.h"

namespace quiver::cli {

inline constexpr const char* kVersion = "0.1.0";

/// Options that every verb takes.
struct CommonOptions {
  const CLI::App* command = nullptr;  ///< the verb
  std::string base;
  std::string device = "auto";
  std::string dtype = "auto";
  std::string base_weights = "auto";
  std::optional<std::int64_t> context;
  int threads = 0;
  std::uint64_t seed = 42;
  bool json = false;
  methods::FormatChoice format;
  bool reads_text = false;  ///< the verb has --chat, --no-chat and --system, and the base a format

  /// Shows the verb's work; its messages name options by their flags.
  TerminalProgress progress() const { return TerminalProgress(*command); }
  /// Sets libtorch's threads and resolves where to compute.
  tensor::Placement placement() const;
  /// The base model in the form that has the named maps, with a format of prompts where the verb reads text.
  methods::BaseModel load(const methods::NamedMaps& maps = {}, data::TrainOn train_on = data::TrainOn::kAll) const;
};

/// What a verb works with.
enum class Reads {
  kNothing,  ///< no model
  kBase,     ///< a base model
  kText,     ///< a base model, and text for it
};
/// --device --dtype --threads --seed --json, with a model --base, and with text --chat --no-chat --system.
void add_common_options(CLI::App& command, CommonOptions& options, Reads reads);

/// --base-weights, of a verb that trains nothing.
void add_base_weights_option(CLI::App& command, CommonOptions& options);

/// A verb with CommonOptions, the member `common` of its Options. They live as long as the verb, which calls run(options).
template <typename Options>
std::pair<CLI::App&, Options&> add_verb(CLI::App& app, const char* name, const char* help, Reads reads, void (*run)(Options&)) {
  auto options = std::make_shared<Options>();
  auto& command = *app.add_subcommand(name, help);
  add_common_options(command, options->common, reads);
  command.callback([options, run] { run(*options); });
  return {command, *options};
}

/// --max-new-tokens --temperature --top-p
void add_generation_options(CLI::App& command, schedule::RequestOptions& request);
/// Which adapters, and by which method, as the command line says it.
struct AdapterOptions {
  methods::AdapterSource source;
  std::string method = methods::MethodUse().name;  ///< a name as methods::parse_name reads it
  MethodFlags flags;

  /// The method with its options. Throws as methods::parse_name, and kUsage for a kind in the name beside --kind or --adapters.
  methods::AdapterUse use() const { return use_of(method); }
  /// The same by another name of a method.
  methods::AdapterUse use_of(const std::string& name) const;
};

/// --library --adapters --kind --general --general-by-factors --allow-other-base: which adapters of a library.
void add_member_options(CLI::App& command, methods::AdapterSource& source);
/// These, --method and the options of methods. When the command line is read, check_adapter_options is called with --method; a verb that
/// uses more methods replaces the callback.
void add_library_options(CLI::App& command, AdapterOptions& options);
/// These, or --adapter.
void add_adapter_options(CLI::App& command, AdapterOptions& options);
/// Throws kUsage for an option that none of the methods `uses` would read (none given: any method may), for adapters named twice, and for
/// contradictions.
void check_adapter_options(const CLI::App& command, const AdapterOptions& options, std::span<const methods::MethodUse> uses);

/// A line of an input as messages name it: "requests.jsonl:3 (row 'x')", with the id if the row has one.
std::string row_name(const nlohmann::json& row, const std::string& line);

/// One line of JSON on stdout.
void print_json(const nlohmann::json& value);
/// With --json the result as JSON, else its text.
void print_result(const CommonOptions& common, const nlohmann::json& result, const std::string& text);
/// Text on stdout, checked: a full disk or a closed pipe is an error.
void print_text(const std::string& text);
/// Whether an output of this name becomes a file: it is neither stdout (empty or "-") nor a stream (io::is_stream).
bool is_file(const std::string& path);
/// What a verb writes. By force it replaces a file of that form alone, or an empty one.
enum class OutputForm {
  kPage,     ///< an HTML page
  kResults,  ///< results of `quiver eval`
  kLines,    ///< a JSON object per line
};
/// Throws, before the work, what write_output would throw after it.
void check_output(const std::string& path, OutputForm form, bool force);
/// stdout as `path`'s stand-in when it is "-" or empty, else an atomic file that must not exist without `force`.
void write_output(const std::string& path, const std::string& text, OutputForm form, bool force);

using AddCommand = void(CLI::App& app);
AddCommand add_fetch_command, add_tokenize_command, add_score_command, add_generate_command, add_chat_command, add_train_command,
    add_cluster_command, add_build_command, add_library_command, add_adapt_command, add_analyse_command, add_eval_command,
    add_methods_command, add_merge_command, add_export_command, add_route_command, add_serve_command, add_report_command, add_bench_command,
    add_selfcheck_command;

}  // namespace quiver::cli
