#include "quiver/report/report.h"

#include "quiver/cli/command.h"
#include "quiver/io/json.h"
#include "quiver/report/text_table.h"

namespace quiver::cli {

/// quiver report results.json ... --output report.html
void add_report_command(CLI::App& app) {
  struct Options {
    std::vector<std::string> results;
    std::string output = "report.html";
    report::ReportOptions report;
    bool json = false;
    bool force = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("report", "One self-contained HTML page from the results of one or more evaluations");
  command->add_option("results", options->results, "Results files of 'quiver eval'")->required();
  command->add_option("--output", options->output, "The page; - is standard output");
  command->add_option("--title", options->report.title, "Title of the page");
  command->add_flag("--json", options->json, "Print {\"path\": ...}");
  command->add_flag("--force", options->force, "Overwrite the page");
  command->callback([options] {
    check_output(options->output, OutputForm::kPage, options->force);
    std::vector<results::Results> results;
    for (const auto& path : options->results) results.push_back(results::from_json(io::read_json_file(path), path));
    write_output(options->output, report::render_report(results, options->report), OutputForm::kPage, options->force);
    if (options->json) print_json({{"path", options->output}});
  });
}

}  // namespace quiver::cli
