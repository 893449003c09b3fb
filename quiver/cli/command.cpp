#include "quiver/cli/command.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::cli {

tensor::Placement CommonOptions::placement() const {
  if (threads > 0) at::set_num_threads(threads);
  return tensor::resolve_placement(device, dtype);
}

recipes::BaseModel CommonOptions::load() const { return recipes::load_base(base, placement()); }

void add_common_options(CLI::App& command, CommonOptions& options, bool with_base) {
  if (with_base) {
    command.add_option("--base", options.base, "Base model: a Hugging Face folder or a .gguf file (default: the one 'quiver fetch' gets)");
  }
  command.add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
  command.add_option("--dtype", options.dtype, "Of the base model: auto (bfloat16 where the hardware multiplies it), float32 or bfloat16")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "CPU threads (0: all cores)")->check(CLI::NonNegativeNumber)->capture_default_str();
  command.add_option("--seed", options.seed, "Seeds every random choice")->capture_default_str();
  command.add_flag("--json", options.json, "Results as JSON");
}

void add_adapter_options(CLI::App& command, recipes::AdapterChoice& choice) {
  command.add_option("--adapter", choice.adapter, "One adapter: a PEFT folder");
  command.add_option("--library", choice.library, "A library of adapters, used as --method says");
  command.add_option("--method", choice.method, "How to use the library: mean, arrow, or oracle=NAME")->capture_default_str();
  command.add_option("--adapters", choice.names, "Adapters of the library to use (default: the private and imported ones)")->delimiter(',');
  command.add_option("--kind", choice.kind, "Use the library's adapters of this kind: private, cluster, shared or imported");
  command.add_option("--top-k", choice.top_k, "Arrow: adapters per token and projection (default: 4, or all of a smaller library)")
      ->check(CLI::PositiveNumber);
  command.add_option("--temperature", choice.temperature, "Arrow: divides the scores before the softmax")->capture_default_str();
  command.add_option("--combine", choice.combine, "Arrow: mix params (the paper) or outputs (PEFT)")->capture_default_str();
  command.add_flag("--allow-other-base", choice.allow_other_base, "Use adapters that were made for another base model");
}

void print_text(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail(ErrorKind::kIo, "cannot write to standard output: {}", std::strerror(errno));
  }
}

void print_json(const nlohmann::json& value) { print_text(io::dump_json(value, "result") + "\n"); }

void write_output(const std::string& path, const std::string& text, bool force) {
  if (path.empty() || path == "-") {
    print_text(text);
    return;
  }
  if (!force && std::filesystem::exists(path)) fail(ErrorKind::kUsage, "'{}' exists already; --force overwrites it", path);
  io::write_file_atomic(path, text);
}

}  // namespace quiver::cli
