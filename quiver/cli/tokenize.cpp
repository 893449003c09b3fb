#include <iostream>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/io/json.h"

namespace quiver::cli {
namespace {

struct TokenizeOptions {
  CommonOptions common;
  bool decode = false;
  bool json_lines = false;
  bool messages = false;
  bool add_generation_prompt = false;
};

void decode_line(const text::Tokenizer& tokenizer, const std::string& line, const std::string& where) {
  const auto row = io::parse_json(line, where);
  const auto& ids = row.is_object() ? io::require_array(row, "ids", where) : row;
  std::vector<std::int32_t> tokens;
  for (const auto& id : ids) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= tokenizer.vocab_size()) {
      fail(ErrorKind::kBadFormat, "{}: {} is not a token id of this vocabulary of {}", where, id.dump(), tokenizer.vocab_size());
    }
    tokens.push_back(id.get<std::int32_t>());
  }
  print_json({{"text", tokenizer.decode(tokens)}});
}

/// A list of messages, or {"messages": list}; the order of roles is the template's business.
void render_line(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat, const TokenizeOptions& options, const std::string& line,
                 const std::string& where) {
  const auto row = io::parse_json(line, where);
  const auto messages = text::parse_messages(row.is_object() ? io::require_array(row, "messages", where) : row, where);
  std::string text;
  try {
    text = chat.render(messages, options.add_generation_prompt);
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", where, error.what());
  }
  print_json({{"text", text}, {"ids", tokenizer.encode(text)}});
}

void run(TokenizeOptions& options) {
  if (options.add_generation_prompt && !options.messages) fail(ErrorKind::kUsage, "--add-generation-prompt is for --messages");
  const auto path = methods::base_path_or_default(options.common.base);
  const auto tokenizer = text::load_tokenizer(path);
  for (const auto& warning : tokenizer.warnings()) options.common.progress().message(warning);
  std::optional<text::ChatTemplate> chat;
  if (options.messages) chat = methods::prompt_format(path, tokenizer, {.chat = true}).chat;
  release_interrupts();  // there is nothing to lose, and waiting for a line would not end
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    const auto where = format("standard input:{}", number);
    if (options.decode) {
      decode_line(tokenizer, line, where);
      continue;
    }
    if (chat) {
      render_line(tokenizer, *chat, options, line, where);
      continue;
    }
    if (options.json_lines) {
      const auto row = io::parse_json(line, where);
      if (!row.is_string()) fail(ErrorKind::kBadFormat, "{}: expected a JSON string", where);
      line = row.get<std::string>();
    }
    print_json({{"ids", tokenizer.encode(line)}});
  }
}

}  // namespace

/// quiver tokenize --base B < text > ids
void add_tokenize_command(CLI::App& app) {
  auto [command, options] = add_verb<TokenizeOptions>(
      app, "tokenize", "Text lines in, {\"ids\":[...]} lines out, without special tokens around them", Reads::kBase, run);
  auto* decode =
      command.add_flag("--decode", options.decode, "The other way: lines of {\"ids\":[...]} or [...] in, {\"text\":...} lines out");
  auto* lines = command.add_flag("--json-lines", options.json_lines, "Each line is a JSON string (so that text may hold line breaks)");
  auto* messages =
      command.add_flag("--messages", options.messages,
                       "Each line is a JSON list of {\"role\",\"content\"}; the base's chat template makes {\"text\",\"ids\"} of it");
  command.add_flag("--add-generation-prompt", options.add_generation_prompt, "With --messages: end where the assistant's answer begins");
  for (auto* other : {decode, lines}) messages->excludes(other);
  decode->excludes(lines);
}

}  // namespace quiver::cli
