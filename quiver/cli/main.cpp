// quiver: one program, a verb per file.
#include <c10/util/Exception.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/progress.h"
#include "quiver/cli/command.h"
#include "quiver/cli/flags.h"
#include "quiver/io/file.h"

namespace {

int report(quiver::ErrorKind kind, const std::string& message) {
  std::fprintf(stderr, "quiver: %s\n", message.c_str());
  return quiver::exit_code(kind);
}

/// The first word of the command line that is neither a verb nor an option of the verb, or nothing.
std::string unknown_word(const CLI::App& app, const CLI::App& command, std::span<char* const> words) {
  for (std::string word : words) {
    if (word.starts_with("--")) {
      const auto name = word.substr(0, word.find('='));
      if (command.get_option_no_throw(name) == nullptr && name != "--help" && name != "--version") return name;
    } else if (&command == &app) {
      return word;  // no verb was found, so this was meant as one
    }
  }
  return "";
}

/// Like CLI11's report, in this program's words, naming the verb or option that was probably meant.
int report_usage(const CLI::App& app, const CLI::ParseError& error, std::span<char* const> words) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  std::string message = error.what();
  const auto* command = &app;
  std::string verbs;
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().back();
    verbs += command->get_name() + " ";
  }
  std::vector<std::string> known;
  for (const auto* option : command->get_options()) known.push_back(option->get_name());
  for (const auto* verb : command->get_subcommands([](const CLI::App*) { return true; })) known.push_back(verb->get_name());
  const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
  if (code == CLI::ExitCodes::ExtrasError || code == CLI::ExitCodes::RequiredError) {  // a mistyped verb is a missing one, too
    const auto word = unknown_word(app, *command, words);
    if (!word.empty()) message = quiver::format("unknown argument '{}'{}", word, quiver::did_you_mean(word, known));
  }
  return report(quiver::ErrorKind::kUsage, message + "; see 'quiver " + verbs + "--help'");
}

}  // namespace

int main(int argc, char** argv) {
  using namespace quiver::cli;
  CLI::App app(
      "Quiver: libraries of LoRA adapters. Trains them, groups them, routes every token to the ones that suit it, and measures whether it "
      "helped.",
      "quiver");
  app.set_version_flag("--version", std::string("quiver ") + kVersion);
  app.require_subcommand(1);
  app.footer("'quiver VERB --help' tells more. The whole job on real data: make demo.");
  app.get_formatter()->column_width(34);
  app.option_defaults()->always_capture_default();
  for (auto* add : {add_fetch_command,   add_tokenize_command, add_score_command,   add_generate_command, add_chat_command,
                    add_train_command,   add_cluster_command,  add_build_command,   add_library_command,  add_adapt_command,
                    add_analyse_command, add_eval_command,     add_methods_command, add_merge_command,    add_export_command,
                    add_route_command,   add_serve_command,    add_report_command,  add_bench_command,    add_selfcheck_command})
    add(app);
  check_numbers(app);
  catch_interrupts();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a write error like any other
  try {
    quiver::io::occupy_closed_streams();
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error, std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  } catch (const quiver::Error& error) {
    return report(error.kind(), with_flags(chosen_command(app), error.what()));
  } catch (const c10::Error& error) {
    return report(quiver::ErrorKind::kInternal, std::string("a bug in Quiver, please report it: ") + error.what_without_backtrace());
  } catch (const std::filesystem::filesystem_error& error) {  // a path that may not be entered, a loop of links, an over-long name
    return report(quiver::ErrorKind::kIo, quiver::format("cannot examine '{}': {}", error.path1().string(), error.code().message()));
  } catch (const std::bad_alloc&) {
    return report(quiver::ErrorKind::kIo, "out of memory");
  } catch (const std::exception& error) {
    return report(quiver::ErrorKind::kInternal, std::string("a bug in Quiver, please report it: ") + error.what());
  }
  return 0;
}
