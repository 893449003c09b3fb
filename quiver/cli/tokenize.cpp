#include <iostream>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/io/json.h"

namespace quiver::cli {
namespace {

struct TokenizeOptions {
  CommonOptions common;
  bool decode = false;
  bool json_lines = false;
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

void run(const TokenizeOptions& options) {
  const auto tokenizer = recipes::load_base_tokenizer(options.common.base);
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    const auto where = format("standard input:{}", number);
    if (options.decode) {
      decode_line(tokenizer, line, where);
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
  auto options = std::make_shared<TokenizeOptions>();
  auto* command = app.add_subcommand("tokenize", "Text lines in, {\"ids\":[...]} lines out, without special tokens around them");
  add_common_options(*command, options->common);
  command->add_flag("--decode", options->decode, "The other way: lines of {\"ids\":[...]} or [...] in, {\"text\":...} lines out");
  command->add_flag("--json-lines", options->json_lines, "Each line is a JSON string (so that text may hold line breaks)");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
