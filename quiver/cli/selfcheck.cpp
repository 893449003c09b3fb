#include "quiver/diagnostics/selfcheck.h"

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/diagnostics/machine.h"

namespace quiver::cli {
namespace {

struct SelfcheckOptions {
  CommonOptions common;
};

void run(SelfcheckOptions& options) {
  options.common.placement();
  const auto result = diagnostics::selfcheck();
  auto checks = nlohmann::json::array();
  std::string text;
  for (const auto& check : result.checks) {
    checks.push_back({{"what", check.what}, {"passed", check.passed}, {"difference", check.difference}});
    text += format("{}  {} ({:.2g})\n", check.passed ? "ok  " : "FAIL", check.what, check.difference);
  }
  print_result(options.common,
               {{"signature", result.signature},
                {"passed", result.passed()},
                {"checks", checks},
                {"behaviour", result.behaviour},
                {"machine", diagnostics::describe_machine()}},
               text + "signature " + result.signature + "\n");
  if (!result.passed()) fail(ErrorKind::kInternal, "the self-check failed on this machine; please report it with the lines above");
}

}  // namespace

/// quiver selfcheck
void add_selfcheck_command(CLI::App& app) {
  add_verb<SelfcheckOptions>(app, "selfcheck", "Check the program on a tiny model made on the spot, and print its signature",
                             Reads::kNothing, run);
}

}  // namespace quiver::cli
