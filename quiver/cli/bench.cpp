#include "quiver/diagnostics/bench.h"

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/diagnostics/machine.h"
#include "quiver/diagnostics/random_model.h"

namespace quiver::cli {
namespace {

using nlohmann::json;

/// A verb's options, and the shape that it measures.
template <typename Shape>
struct BenchOptions {
  CommonOptions common;
  Shape shape{};
};

void print(const CommonOptions& common, json result, const std::string& text) {
  result["machine"] = diagnostics::describe_machine();
  print_result(common, result, text);
}

double number(const json& result, const char* key) { return result.at(key).get<double>(); }

/// "1.2 ms (1.1 to 1.3, 25 runs), 45 GFLOP/s, 12 % of plain products'"
std::string describe(const json& result) {
  const auto& s = result.at("seconds");
  return format("{:.2f} ms ({:.2f} to {:.2f}, {} runs), {:.0f} GFLOP/s, {:.0f} % of plain products'", 1e3 * number(s, "median"),
                1e3 * number(s, "low"), 1e3 * number(s, "high"), s.at("runs").get<int>(), number(result, "gflops"),
                100 * number(result, "of_gemm"));
}

void add_count(CLI::App& command, const char* name, std::int64_t& value, const char* help) {
  command.add_option(name, value, help)->check(at_least(1));
}

void run_gemm(BenchOptions<std::int64_t>& options) {
  const auto result = diagnostics::bench_gemm(options.common.placement(), options.shape);
  print(options.common, result,
        format("{:.0f} GFLOP/s over {} shapes of {} rows\n", number(result, "gflops"), result["shapes"].size(), options.shape));
}

void run_memory(BenchOptions<std::int64_t>& options) {
  options.common.placement();  // sets the threads
  const auto result = diagnostics::bench_memory(options.shape << 20);
  print(options.common, result,
        format("{:.1f} GB/s of {} MiB with {} threads\n", number(result, "gigabytes_per_second"), options.shape,
               result["threads"].get<int>()));
}

void run_attention(BenchOptions<diagnostics::AttentionBench>& options) {
  const auto& s = options.shape;
  if (s.num_heads % s.num_kv_heads != 0) fail(ErrorKind::kUsage, "{} heads cannot share {} key heads evenly", s.num_heads, s.num_kv_heads);
  const auto result = diagnostics::bench_attention(options.common.placement(), s);
  print(options.common, result, format("forward  {}\nbackward {}\n", describe(result["forward"]), describe(result["backward"])));
}

struct TrainOptions : BenchOptions<diagnostics::TrainingBench> {
  std::string spec;
};

void run_train(TrainOptions& options) {
  if (!options.spec.empty() && !options.common.base.empty()) {
    fail(ErrorKind::kUsage, "--base '{}' and --spec '{}' exclude each other", options.common.base, options.spec);
  }
  const auto base = options.spec.empty() ? options.common.load().lm
                                         : diagnostics::random_model(options.spec, options.common.placement(), options.common.seed);
  const auto result = diagnostics::bench_training(base, options.shape);
  print(options.common, result,
        format("step {}\n{:.0f} tokens/s, {:.0f} rows/s computed, {:.0f} MiB at the most\n", describe(result),
               number(result, "tokens_per_second"), number(result, "rows_per_second"), result.value("peak_bytes", 0.0) / (1 << 20)));
}

void run_routing(BenchOptions<diagnostics::RoutingBench>& options) {
  const auto base = options.common.load();
  const auto result = diagnostics::bench_routing(base.lm, options.shape);
  const auto& over = result["over_base"];
  print(options.common, result,
        format("{} adapters: Arrow, top {}, takes {:.2f} times the base's time with parameters mixed, {:.2f} with outputs; LAG {:.2f} "
               "(base {:.0f} ms)\n",
               options.shape.num_adapters, options.shape.top_k, number(over, "params"), number(over, "outputs"), number(over, "lag"),
               1e3 * number(result["base"], "median")));
}

void add_gemm(CLI::App& bench) {
  auto [command, options] = add_verb<BenchOptions<std::int64_t>>(
      bench, "gemm", "Rate of plain matrix products in the shapes of the default base model", Reads::kNothing, run_gemm);
  options.shape = 2048;
  add_count(command, "--rows", options.shape, "Rows of the left side");
}

void add_memory(CLI::App& bench) {
  auto [command, options] = add_verb<BenchOptions<std::int64_t>>(
      bench, "memory", "Rate of reading memory from end to end, which bounds decoding", Reads::kNothing, run_memory);
  options.shape = 96;
  command.add_option("--mib", options.shape, "MiB to read; 96 are those that a token of the default base reads")
      ->check(between(1, 1 << 20));
}

void add_attention(CLI::App& bench) {
  auto [command, options] = add_verb<BenchOptions<diagnostics::AttentionBench>>(
      bench, "attention", "Attention over a forest, forward and backward", Reads::kNothing, run_attention);
  auto& shape = options.shape;
  add_count(command, "--trees", shape.trees, "Trees of the forest");
  add_count(command, "--shared", shape.shared, "Rows at the root of each");
  add_count(command, "--children", shape.children, "Segments below it");
  add_count(command, "--length", shape.length, "Rows of each");
  add_count(command, "--heads", shape.num_heads, "Query heads");
  add_count(command, "--kv-heads", shape.num_kv_heads, "Key heads, which divide them");
  add_count(command, "--head-dim", shape.head_dim, "Width of a head");
}

void add_train(CLI::App& bench) {
  auto [command, options] = add_verb<TrainOptions>(bench, "train", "Optimiser steps on random sequences", Reads::kBase, run_train);
  auto& shape = options.shape;
  command.add_option("--spec", options.spec, "Instead of a base, random weights: a config.json that describes the model");
  add_count(command, "--batch-size", shape.batch_size, "Sequences");
  add_count(command, "--length", shape.length, "Tokens of each");
  command.add_option("--shared", shape.shared, "Tokens that begin all of them")->check(at_least(0));
  add_count(command, "--labels", shape.num_targets, "Label tokens of each");
  add_count(command, "--rank", shape.rank, "r of every LoRA");
  command.add_option("--target-modules", shape.target_modules, "Projections to adapt")->delimiter(',');
  command.add_flag("--checkpoint-activations", shape.checkpoint_activations, "Compute activations twice instead of keeping them");
  add_count(command, "--steps", shape.steps, "Measured, after one that is not");
}

void add_routing(CLI::App& bench) {
  auto [command, options] = add_verb<BenchOptions<diagnostics::RoutingBench>>(
      bench, "routing", "Scoring with a library of random adapters under Arrow and LAG, against the base alone", Reads::kBase, run_routing);
  auto& shape = options.shape;
  add_count(command, "--adapters", shape.num_adapters, "Adapters in the library");
  add_count(command, "--rank", shape.rank, "r of every LoRA");
  add_count(command, "--top-k", shape.top_k, "Adapters per token and projection");
  add_count(command, "--batch-size", shape.batch_size, "Sequences");
  add_count(command, "--length", shape.length, "Tokens of each");
  add_count(command, "--rounds", shape.rounds, "Measured, after one that is not");
}

}  // namespace

/// quiver bench gemm|memory|attention|train|routing
void add_bench_command(CLI::App& app) {
  auto* command = app.add_subcommand("bench", "Measure this machine, and how near Quiver comes to it");
  command->require_subcommand(1);
  add_gemm(*command);
  add_memory(*command);
  add_attention(*command);
  add_train(*command);
  add_routing(*command);
}

}  // namespace quiver::cli
