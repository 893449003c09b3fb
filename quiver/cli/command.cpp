#include "quiver/cli/command.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "quiver/base/cores.h"
#include "quiver/base/error.h"
#include "quiver/cli/terminal.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/tensor/cpu.h"

namespace quiver::cli {
namespace {

constexpr int kMostThreads = 1024;  ///< libgomp crashes where the system refuses it a thread

model::Weights weights_of(const std::string& weights) {
  if (weights == "auto" || weights == "dense") return model::Weights::kDense;
  if (weights == "quantized") return model::Weights::kQuantized;
  fail(ErrorKind::kUsage, "`base_weights` '{}' is not one of auto, dense, quantized", weights);
}

}  // namespace

tensor::Placement CommonOptions::placement() const {
  tensor::cpu_isa();  // a wrong QUIVER_ISA is refused here
  if (threads > 0) {
    at::set_num_threads(threads);
  } else {  // libgomp sees the affinity mask, not the quota of a control group
    const bool is_given = std::getenv("OMP_NUM_THREADS") != nullptr;
    at::set_num_threads(std::min(at::get_num_threads(), is_given ? kMostThreads : static_cast<int>(usable_cores())));
  }
  const bool is_quantized = weights_of(base_weights) == model::Weights::kQuantized;  // which compute in float32
  return tensor::resolve_placement(device, is_quantized && dtype == "auto" ? "float32" : dtype);
}

methods::BaseModel CommonOptions::load(const methods::NamedMaps& maps, data::TrainOn train_on) const {
  auto model = methods::load_base(
      base, placement(), {.context = context, .fusion = methods::fusion_for(base, maps), .base_weights = weights_of(base_weights)});
  for (const auto& warning : model.warnings) progress().message(warning);
  if (!reads_text) return model;
  auto choice = format;
  choice.train_on = train_on;
  model.format = methods::prompt_format(model.path, model.tokenizer, choice);
  return model;
}

void add_common_options(CLI::App& command, CommonOptions& options, Reads reads) {
  options.command = &command;
  if (reads != Reads::kNothing) {
    command.add_option("--base", options.base, "Base model: a Hugging Face folder or a .gguf file (default: the one 'quiver fetch' gets)");
    command.add_option("--context", options.context, "Longest text in tokens (default: the base's own; of LongRoPE, its original context)");
  }
  command.add_option("--device", options.device, "auto, cpu or cuda");
  command.add_option("--dtype", options.dtype, "Of the base model: auto (bfloat16 where the hardware multiplies it), float32 or bfloat16");
  command.add_option("--threads", options.threads, "CPU threads (0: all cores that the process may use)")->check(between(0, kMostThreads));
  command.add_option("--seed", options.seed, "Seeds every random choice");
  command.add_flag("--json", options.json, "Results as JSON");
  options.reads_text = reads == Reads::kText;
  if (!options.reads_text) return;
  auto* chat = command.add_flag_callback(
      "--chat", [&options] { options.format.chat = true; },
      "Text is the user's message in the base's chat template (the default where the base has one)");
  auto* bare = command.add_flag_callback(
      "--no-chat", [&options] { options.format.chat = false; }, "Text is given to the model as it is");
  chat->excludes(bare);
  command.add_option("--system", options.format.system, "System message of conversations that bring none (default: the template's own)")
      ->excludes(bare);
}

void add_base_weights_option(CLI::App& command, CommonOptions& options) {
  command.add_option("--base-weights", options.base_weights,
                     "Of a GGUF base: auto, dense (values in --dtype) or quantized (4 and 8 bits as in the file, computed in float32)");
}

void add_generation_options(CLI::App& command, schedule::RequestOptions& request) {
  command.add_option("--max-new-tokens", request.max_new_tokens, "Longest answer")->check(at_least(1));
  auto* temperature =
      command.add_option("--temperature", request.sampler.temperature, "Of sampling; 0 is greedy (of routing: --routing-temperature)");
  temperature->check(at_least(0));
  command.add_option("--sampling-temperature", request.sampler.temperature, "The former name of --temperature")
      ->check(at_least(0))
      ->default_str("")
      ->excludes(temperature)
      ->each([](const std::string&) {
        std::fputs("quiver: --sampling-temperature is called --temperature now; the next version does not know the former name\n", stderr);
      });
  command.add_option("--top-p", request.sampler.top_p, "Sample from the smallest set of tokens of this probability");
}

std::string row_name(const nlohmann::json& row, const std::string& line) {
  const auto id = row.is_object() ? row.find("id") : row.end();
  if (id == row.end()) return line;
  return format("{} (row {})", line, id->is_string() ? "'" + id->get<std::string>() + "'" : io::dump_json(*id, "id"));
}

void print_text(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail(ErrorKind::kIo, "cannot write to standard output: {}", std::strerror(errno));
  }
}

void print_json(const nlohmann::json& value) { print_text(io::dump_json(value, "result") + "\n"); }

void print_result(const CommonOptions& common, const nlohmann::json& result, const std::string& text) {
  common.json ? print_json(result) : print_text(text);
}

bool is_file(const std::string& path) { return !path.empty() && path != "-" && !io::is_stream(path); }

namespace {

/// Whether the file may be one that a verb of this form has written. An empty file may be any.
bool has_form(const std::filesystem::path& file, OutputForm form) {
  std::string line;  // the first
  std::ifstream stream(file, std::ios::binary);
  if (!std::getline(stream, line)) return true;
  switch (form) {
    case OutputForm::kPage: return line == "<!DOCTYPE html>";
    case OutputForm::kLines: return line.starts_with("{") && nlohmann::json::accept(line);
    case OutputForm::kResults:  // the key stands behind others, somewhere
      while (line.find("\"quiver_results\"") == std::string::npos) {
        if (!std::getline(stream, line)) return false;
      }
      return true;
  }
  return false;
}

/// By OutputForm.
constexpr const char* kFormNames[] = {"an HTML page", "results of 'quiver eval'", "a file of JSON lines"};

}  // namespace

void check_output(const std::string& path, OutputForm form, bool force) {
  if (!is_file(path)) return;
  namespace fs = std::filesystem;
  const fs::path file(path);
  std::error_code error;
  const auto status = fs::status(file, error);
  if (status.type() == fs::file_type::none) fail(ErrorKind::kIo, "cannot write '{}': {}", path, error.message());
  if (!file.has_filename() || fs::is_directory(status))
    fail(ErrorKind::kUsage, "cannot write '{}': it names a folder, a file was expected", path);
  if (fs::exists(status) && !force) fail(ErrorKind::kUsage, "'{}' exists already; --force overwrites it", path);
  if (fs::exists(status) && !has_form(file, form)) {
    fail(ErrorKind::kUsage, "'{}' exists and is not {}: it is not replaced, even by --force", path, kFormNames[static_cast<int>(form)]);
  }
  const auto folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error))
    fail(ErrorKind::kNotFound, "cannot write '{}': there is no folder '{}' (create it first)", path, folder.string());
}

void write_output(const std::string& path, const std::string& text, OutputForm form, bool force) {
  if (path.empty() || path == "-") return print_text(text);
  check_output(path, form, force);
  io::write_file_atomic(path, text);
}

}  // namespace quiver::cli
