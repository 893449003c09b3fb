#include "quiver/cli/command.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

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

recipes::BaseModel CommonOptions::load(data::TrainOn train_on) const {
  auto model = recipes::load_base(base, placement());
  if (!reads_text) return model;
  auto choice = format;
  choice.train_on = train_on;
  model.format = recipes::prompt_format(model.path, model.tokenizer, choice);
  return model;
}

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

void add_format_options(CLI::App& command, CommonOptions& options) {
  options.reads_text = true;
  auto* chat = command.add_flag_callback("--chat", [&options] { options.format.chat = true; },
                                         "Text is the user's message in the base's chat template (the default where the base has one)");
  auto* bare = command.add_flag_callback("--no-chat", [&options] { options.format.chat = false; }, "Text is given to the model as it is");
  chat->excludes(bare);
  command.add_option("--system", options.format.system, "System message of conversations that bring none (default: the template's own)");
}

void add_generation_options(CLI::App& command, model::GenerateOptions& generate) {
  command.add_option("--max-new-tokens", generate.max_new_tokens, "Longest answer")->check(CLI::PositiveNumber)->capture_default_str();
  command.add_option("--sampling-temperature", generate.temperature, "0 is greedy")->check(CLI::NonNegativeNumber)->capture_default_str();
  command.add_option("--top-p", generate.top_p, "Sample from the smallest set of tokens of this probability")->capture_default_str();
}

void add_adapter_options(CLI::App& command, recipes::AdapterChoice& choice) {
  command.add_option("--adapter", choice.adapter, "One adapter: a PEFT folder");
  command.add_option("--library", choice.library, "A library of adapters, used as --method says");
  command.add_option("--method", choice.method, "How to use the library: lag, arrow, mean, oracle=NAME, or another that 'quiver methods' lists")->capture_default_str();
  command.add_option("--adapters", choice.names, "Adapters of the library to use (default: the private and imported ones)")->delimiter(',');
  command.add_option("--kind", choice.kind, "Use the library's adapters of this kind: private, cluster, shared, imported, poly or mhr");
  command.add_option("--top-k", choice.top_k, "Adapters per token and projection, or prompt (default: the method's, or all of a smaller library)")
      ->check(CLI::PositiveNumber);
  command.add_option("--temperature", choice.temperature, "Divides the scores before the softmax")->capture_default_str();
  command.add_option("--combine", choice.combine, "Mix params (the paper) or outputs (PEFT) (default: the method's)");
  command.add_option("--tie", choice.tie, "arrow and its kin: projections of a block that share a prototype and decide as one: q_proj,k_proj,v_proj")->delimiter(',');
  command.add_option("--tie-by", choice.tie_by, "What their prototype is of: concat, their updates one above another, or sum")->capture_default_str();
  command.add_option("--weights", choice.merge.weights, "Merges: a weight for each adapter, in name order")->delimiter(',');
  command.add_option("--lambda", choice.merge.lambda, "task-arithmetic: the factor of the sum");
  command.add_option("--density", choice.merge.density, "Merges by ties and dare: the share of entries kept");
  command.add_option("--merge-rank", choice.merge.rank, "Merges: compress the result to this rank");
  command.add_option("--general", choice.general, "Subtract the mean of these adapters of the library from the others first (GenKnowSub)")
      ->delimiter(',');
  command.add_flag("--general-by-factors", choice.general_by_factors, "Subtract factor by factor, as PEFT does, not exactly");
  command.add_option("--calibration", choice.calibration.file,
                     "Texts of no task in particular, one a line, to calibrate scores on (default: samples of the base model)");
  command.add_option("--calibration-prompts", choice.calibration.num_prompts, "Number of texts to calibrate on")->capture_default_str();
  command.add_option("--task-threshold", choice.task_threshold,
                     "lag-base, gated-arrow: a prompt looks like a task at so many standard deviations above text of no task")
      ->capture_default_str();
  command.add_option("--pooled-weight", choice.pooled_weight, "gated-arrow: of the prompt's evidence where it is clear")->capture_default_str();
  command.add_option("--fallback", choice.fallback, "arrow-mean: when it gives way: constant, entropy or margin")->capture_default_str();
  command.add_option("--fallback-strength", choice.fallback_strength, "arrow-mean: the constant share, or the power of the other two")
      ->capture_default_str();
  command.add_option("--components", choice.components, "spectral: singular directions of each adapter (0: all)")->capture_default_str();
  command.add_option("--gamma", choice.gamma, "spectral: power of the singular values")->capture_default_str();
  command.add_flag("--calibrated", choice.is_calibrated, "spectral: on scores measured against those on text of no task (--calibration)");
  command.add_option("--centroid-score", choice.centroid_score, "centroids: cosine (the paper), or dot, over the root of the width (its code)")
      ->capture_default_str();
  command.add_option("--shortlist", choice.shortlist, "lag: adapters that Arrow lets through")->capture_default_str();
  command.add_option("--gate-steps", choice.gate_steps, "phatgoose: training steps of an adapter's gates")->capture_default_str();
  command.add_option("--task-data", choice.task_data, "centroids, phatgoose, retrieval, task-predictor: folder of the adapters' tasks")->capture_default_str();
  command.add_option("--task-samples", choice.task_samples, "centroids, retrieval, task-predictor: training rows that stand for an adapter's tasks")
      ->capture_default_str();
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
