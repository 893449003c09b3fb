#include "quiver/model/generate.h"
#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/encode.h"
#include "quiver/io/json.h"

namespace quiver::cli {
namespace {

struct GenerateOptions {
  CommonOptions common;
  recipes::AdapterChoice choice;
  std::string prompt;
  std::string input;
  model::GenerateOptions generate;
};

std::vector<std::int32_t> encode(const recipes::BaseModel& base, const std::string& prompt, const std::string& where) {
  if (!base.format.chat) return data::encode_text(base.tokenizer, prompt);
  return data::encode_messages(base.tokenizer, base.format, {{"user", prompt}}, where);
}

/// A line of --input: {"prompt": text}, or {"messages": [...]} that end with the user's.
std::vector<std::int32_t> encode(const recipes::BaseModel& base, const nlohmann::json& row, const std::string& where) {
  if (!row.contains("messages")) return encode(base, io::require_string(row, "prompt", where), where);
  if (row.contains("prompt")) fail(ErrorKind::kBadFormat, "{}: the row has both 'messages' and 'prompt'; expected one of them", where);
  return data::encode_messages(base.tokenizer, base.format, data::read_request(row.at("messages"), where), where);
}

/// One prompt, its answer appearing as it is made.
void run_prompt(const GenerateOptions& options, const recipes::BaseModel& base, const recipes::AdaptedModel& model) {
  text::StreamDecoder decoder(base.tokenizer, /*skip_special=*/true);
  const std::vector<std::vector<std::int32_t>> prompts = {encode(base, options.prompt, "")};
  auto generate = options.generate;
  NoProgress quiet;
  generate.groups = model.groups_of(prompts, quiet);
  const auto answers = model::generate(model.llama, prompts, generate, [&](std::int64_t, std::int32_t token) {
    if (!options.common.json) print_text(decoder.push(token));
    return !stop_requested();
  });
  if (options.common.json) {
    print_json({{"prompt", options.prompt}, {"text", base.tokenizer.decode(answers[0], true)}, {"ids", answers[0]}});
  } else {
    print_text(decoder.finish() + "\n");
  }
  if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped while generating");
}

void run_file(const GenerateOptions& options, const recipes::BaseModel& base, const recipes::AdaptedModel& model) {
  io::JsonLinesReader reader(options.input);
  std::vector<nlohmann::json> ids;
  std::vector<std::vector<std::int32_t>> prompts;
  auto generate = options.generate;
  while (const auto row = reader.next()) {
    const auto where = row_name(*row, reader.where());
    generate.names.push_back(where);
    ids.push_back(row->contains("id") ? row->at("id") : nlohmann::json(ids.size()));
    prompts.push_back(encode(base, *row, where));
    if (prompts.back().empty()) fail(ErrorKind::kUsage, "{}: the prompt is empty", where);
    const auto size = static_cast<std::int64_t>(prompts.back().size());
    if (size >= base.llama.config().max_positions) {
      fail(ErrorKind::kUsage, "{}: the prompt has {} tokens, which leaves no room for an answer in the model's context of {}", where, size,
           base.llama.config().max_positions);
    }
  }
  auto progress = options.common.progress();
  generate.groups = model.groups_of(prompts, progress);
  progress.begin("generate", static_cast<std::int64_t>(prompts.size()) * options.generate.max_new_tokens, "tokens at most");
  const auto on_token = [&](std::int64_t, std::int32_t) {
    progress.advance(1, "");
    return !stop_requested();
  };
  const auto on_batch = [&](std::int64_t first, std::span<const std::vector<std::int32_t>> answers) {
    if (stop_requested())
      fail(ErrorKind::kInterrupted, "stopped while generating; the answers to {} of {} prompts are printed", first, prompts.size());
    for (std::size_t i = 0; i < answers.size(); ++i) {
      print_json(
          {{"id", ids[static_cast<std::size_t>(first) + i]}, {"text", base.tokenizer.decode(answers[i], true)}, {"ids", answers[i]}});
    }
  };
  model::generate(model.llama, prompts, generate, on_token, on_batch);
  progress.end();
}

void run(GenerateOptions& options) {
  if (options.prompt.empty() == options.input.empty()) fail(ErrorKind::kUsage, "give either --prompt or --input");
  const auto base = options.common.load();
  auto progress = options.common.progress();
  const auto model = recipes::adapted_model(base, options.choice, progress);
  options.generate.stop_ids = data::stop_ids(base.tokenizer, base.format);
  options.generate.seed = options.common.seed;
  options.prompt.empty() ? run_file(options, base, model) : run_prompt(options, base, model);
}

}  // namespace

/// quiver generate --prompt TEXT | --input prompts.jsonl
void add_generate_command(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  auto* command =
      app.add_subcommand("generate", "Answer a prompt (or continue it, with --no-chat), or the {\"id\",\"prompt\"} lines of a file");
  add_common_options(*command, options->common);
  add_format_options(*command, options->common);
  add_adapter_options(*command, options->choice);
  command->add_option("--prompt", options->prompt,
                      "The user's message, or with --no-chat text to continue; the answer streams to standard output");
  command->add_option("--input", options->input, "Lines of {\"prompt\"} or {\"messages\"}, .jsonl or .jsonl.zst; - is standard input");
  add_generation_options(*command, options->generate);
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
