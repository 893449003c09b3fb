#include <unistd.h>

#include <iostream>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/recipes/chat_session.h"

namespace quiver::cli {
namespace {

constexpr const char* kHelp =
    "/method NAME  use the library by another method ('quiver methods' lists them)\n"
    "/trace        which adapters gave the last answer\n"
    "/reset        forget the conversation\n"
    "/help         this list\n"
    "/quit         leave, as Ctrl-D; Ctrl-C ends an answer\n";

struct ChatOptions {
  CommonOptions common;
  AdapterOptions adapters;
  schedule::RequestOptions request{.max_new_tokens = 256};
};

void answer(recipes::ChatSession& session, const std::string& message, bool is_json, Progress& progress) {
  catch_interrupts();
  const auto answer = session.answer(
      message,
      [&](std::string_view piece) {
        if (!is_json) print_text(std::string(piece));
        return true;
      },
      progress, process_stop());
  if (is_json) {
    nlohmann::json shares = nlohmann::json::array();
    for (const auto& [name, share] : session.shares()) shares.push_back({{"name", name}, {"share", share}});
    print_json({{"message", message},
                {"text", answer.text},
                {"num_tokens", answer.num_tokens},
                {"forgotten", answer.num_forgotten},
                {"adapters", shares}});
  } else {
    print_text(answer.was_stopped ? " [stopped]\n" : "\n");
  }
  if (answer.num_forgotten > 0)
    progress.message(format("the oldest {} messages no longer fit into the context and were forgotten", answer.num_forgotten));
  clear_stop();
}

void print_shares(const recipes::ChatSession& session) {
  const auto shares = session.shares();
  if (shares.empty()) return print_text("no answer yet\n");
  for (const auto& [name, share] : shares) {
    if (share >= 0.0005) print_text(format("{:>6.1f} %  {}\n", 100 * share, name));
  }
}

/// A line that begins with a slash. False if it ends the conversation.
bool run_command(recipes::ChatSession& session, const std::string& line, const AdapterOptions& adapters, Progress& progress) {
  const auto word = line.substr(0, line.find(' '));
  const auto argument = line.size() > word.size() ? line.substr(word.size() + 1) : std::string();
  if (word == "/quit" || word == "/exit") return false;
  if (word == "/reset")
    session.reset();
  else if (word == "/trace")
    print_shares(session);
  else if (word == "/help")
    print_text(kHelp);
  else if (word == "/method" && argument.empty())
    print_text(methods::text_of(session.use().method) + "\n");
  else if (word == "/method")
    session.set_method(adapters.use_of(argument).method, progress);
  else
    progress.message(format("no command '{}'; /help lists them (a message that begins with '/' takes a space before it)", word));
  return true;
}

void run(ChatOptions& options) {
  if (options.common.format.chat == false)
    fail(ErrorKind::kUsage, "--no-chat: a conversation needs the chat template; 'quiver generate --no-chat' continues text");
  const auto base = options.common.load({options.adapters.source});
  auto progress = options.common.progress();
  options.request.sampler.seed = options.common.seed;
  recipes::ChatSession session(base, options.adapters.use(), options.request, progress);
  const bool is_terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && !options.common.json;
  if (is_terminal) print_text(format("{}; /help lists commands, Ctrl-D leaves\n", base.lm.spec().name));
  std::string line;
  while (true) {
    release_interrupts();  // while nothing is answered, Ctrl-C leaves
    if (is_terminal) print_text("> ");
    if (!std::getline(std::cin, line)) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    try {
      if (line.front() != '/')
        answer(session, line, options.common.json, progress);
      else if (!run_command(session, line, options.adapters, progress))
        return;
    } catch (const Error& error) {  // the conversation goes on for who can mend it
      if (!is_terminal || error.kind() == ErrorKind::kIo) throw;
      progress.message(error.what());
    }
  }
  if (is_terminal) print_text("\n");
}

}  // namespace

/// quiver chat [--library L --method M | --adapter A]
void add_chat_command(CLI::App& app) {
  auto [command, options] = add_verb<ChatOptions>(
      app, "chat", "Talk with the base model, an adapter or a library; every line of input is a message", Reads::kText, run);
  add_base_weights_option(command, options.common);
  add_adapter_options(command, options.adapters);
  // /method may turn to any method later.
  command.parse_complete_callback([&command, &options] { check_adapter_options(command, options.adapters, {}); });
  add_generation_options(command, options.request);
  command.footer(kHelp);
}

}  // namespace quiver::cli
