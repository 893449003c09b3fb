#include "quiver/recipes/bench.h"

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/recipes/machine.h"

namespace quiver::cli {

/// quiver bench gemm [--rows N]
void add_bench_command(CLI::App& app) {
  struct Options {
    CommonOptions common;
    std::int64_t rows = 2048;
  };
  auto* command = app.add_subcommand("bench", "Measure this machine");
  command->require_subcommand(1);
  auto options = std::make_shared<Options>();
  auto* gemm = command->add_subcommand("gemm", "Rate of plain matrix products in the shapes of the default base model");
  add_common_options(*gemm, options->common, /*with_base=*/false);
  gemm->add_option("--rows", options->rows, "Rows of the left side")->check(CLI::PositiveNumber)->capture_default_str();
  gemm->callback([options] {
    auto result = recipes::bench_gemm(options->common.placement(), options->rows);
    result["machine"] = recipes::describe_machine();
    if (options->common.json) {
      print_json(result);
    } else {
      print_text(
          format("{:.0f} GFLOP/s over {} shapes of {} rows\n", result["gflops"].get<double>(), result["shapes"].size(), options->rows));
    }
  });
}

}  // namespace quiver::cli
