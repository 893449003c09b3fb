#include "quiver/diagnostics/selfcheck.h"

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/diagnostics/machine.h"

namespace quiver::cli {

/// quiver selfcheck
void add_selfcheck_command(CLI::App& app) {
  auto options = std::make_shared<CommonOptions>();
  auto* command = app.add_subcommand("selfcheck", "Check the program on a tiny model made on the spot, and print its signature");
  add_common_options(*command, *options, /*with_base=*/false);
  command->callback([options] {
    options->placement();
    const auto result = diagnostics::selfcheck();
    if (options->json) {
      nlohmann::json checks = nlohmann::json::array();
      for (const auto& check : result.checks)
        checks.push_back({{"what", check.what}, {"passed", check.passed}, {"difference", check.difference}});
      print_json({{"signature", result.signature},
                  {"passed", result.passed()},
                  {"checks", checks},
                  {"behaviour", result.behaviour},
                  {"machine", diagnostics::describe_machine()}});
    } else {
      for (const auto& check : result.checks)
        print_text(format("{}  {} ({:.2g})\n", check.passed ? "ok  " : "FAIL", check.what, check.difference));
      print_text("signature " + result.signature + "\n");
    }
    if (!result.passed()) fail(ErrorKind::kInternal, "the self-check failed on this machine; please report it with the lines above");
  });
}

}  // namespace quiver::cli
