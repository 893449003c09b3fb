#include <unistd.h>

#include <cstdlib>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/io/json.h"
#include "quiver/methods/table.h"
#include "quiver/recipes/trace.h"
#include "quiver/report/trace_view.h"

namespace quiver::cli {
namespace {

struct RouteOptions {
  CommonOptions common;
  AdapterOptions adapters;
  std::string prompt;
  std::string html;
  bool trace = false;
  bool force = false;
};

void run(RouteOptions& options) {
  const auto use = options.adapters.use();
  methods::expect_routing(use.method.row());
  check_output(options.html, OutputForm::kPage, options.force);  // before the work
  const auto base = options.common.load({use.source});
  auto progress = options.common.progress();
  const auto trace = recipes::trace_routes(base, use, options.prompt, progress);
  if (!options.html.empty()) write_output(options.html, report::render_trace_page(trace, ""), OutputForm::kPage, options.force);
  if (options.common.json) {
    print_json(trace);
  } else if (options.html != "-") {
    const bool is_terminal = isatty(STDOUT_FILENO) == 1;
    print_text(report::render_trace_text(trace, {.width = is_terminal ? terminal_width(STDOUT_FILENO) : 100,
                                                 .has_colour = is_terminal && std::getenv("NO_COLOR") == nullptr,
                                                 .every_token = options.trace}));
  }
}

}  // namespace

/// quiver route --library L --prompt TEXT [--trace] [--html FILE]
void add_route_command(CLI::App& app) {
  auto [command, options] = add_verb<RouteOptions>(app, "route", "Which adapters of a library a text is routed to", Reads::kText, run);
  add_base_weights_option(command, options.common);
  add_library_options(command, options.adapters);
  add_former_temperature(command, options.adapters.flags);
  command.get_option("--library")->required();
  command.add_option("--prompt", options.prompt, "The text")->required();
  command.add_flag("--trace", options.trace, "Show every token, with the adapter favoured in each layer");
  command.add_option("--html", options.html, "Write a page to click through, token by layer by adapter; - is standard output");
  command.add_flag("--force", options.force, "Overwrite the page")->needs("--html");
}

}  // namespace quiver::cli
