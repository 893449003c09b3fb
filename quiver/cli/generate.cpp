#include "quiver/model/generate.h"

#include <algorithm>
#include <span>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/line_output.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"
#include "quiver/methods/adapted_model.h"

namespace quiver::cli {
namespace {

struct GenerateOptions {
  CommonOptions common;
  AdapterOptions adapters;
  std::optional<std::string> prompt;  ///< may be an empty text
  std::string input;
  std::string output = "-";
  bool force = false;
  schedule::RequestOptions request;
};

/// A line of --input: {"prompt": text}, or {"messages": [...]} that end with the user's.
std::vector<std::int32_t> encode(const methods::BaseModel& base, const nlohmann::json& row, const std::string& where) {
  if (!row.contains("messages")) {
    return data::encode_user_text(base.tokenizer, base.format, io::require_string(row, "prompt", where), where);
  }
  if (row.contains("prompt")) fail(ErrorKind::kBadFormat, "{}: the row has both 'messages' and 'prompt'; expected one of them", where);
  return data::encode_messages(base.tokenizer, base.format, data::read_request(row.at("messages"), where), where);
}

/// One prompt, its answer appearing as it is made.
void run_prompt(const GenerateOptions& options, const methods::BaseModel& base, const methods::AdaptedModel& model) {
  text::StreamDecoder decoder(base.tokenizer, /*skip_special=*/true);
  const std::vector<std::vector<std::int32_t>> prompts = {
      data::encode_user_text(base.tokenizer, base.format, *options.prompt, "the prompt")};
  NoProgress quiet;
  const model::GenerateOptions generate{
      .groups = model.groups_of(prompts, quiet), .names = {model.name, {"the prompt"}}, .stop = process_stop()};
  const auto answers = model::generate(model.lm, prompts, options.request, generate, [&](std::int64_t, std::int32_t token) {
    if (!options.common.json) print_text(decoder.push(token));
    return true;
  });
  if (options.common.json) {
    print_json({{"prompt", *options.prompt}, {"text", base.tokenizer.decode(answers[0], true)}, {"ids", answers[0]}});
  } else {
    print_text(decoder.finish() + "\n");
  }
  if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped while generating");
}

/// The lines of --input, encoded.
struct Prompts {
  std::vector<nlohmann::json> ids;
  std::vector<std::string> names;  // for messages
  std::vector<std::vector<std::int32_t>> tokens;
};

Prompts read_prompts(const methods::BaseModel& base, const std::string& input) {
  Prompts prompts;
  io::JsonLinesReader reader(input);
  while (const auto row = reader.next()) {
    const auto where = row_name(*row, reader.where());
    prompts.names.push_back(where);
    prompts.ids.push_back(row->contains("id") ? row->at("id") : nlohmann::json(prompts.ids.size()));
    prompts.tokens.push_back(encode(base, *row, where));
    if (prompts.tokens.back().empty()) fail(ErrorKind::kUsage, "{}: the prompt is empty", where);
    const auto size = static_cast<std::int64_t>(prompts.tokens.back().size());
    if (size >= base.lm.spec().max_positions) {
      fail(ErrorKind::kUsage, "{}: the prompt has {} tokens, which leaves no room for an answer in the model's context of {}", where, size,
           base.lm.spec().max_positions);
    }
  }
  return prompts;
}

std::string run_key(const methods::BaseModel& base, const GenerateOptions& options, const Prompts& prompts) {
  const auto& request = options.request;
  auto key = methods::begin_run_key("generate-1", base, options.adapters.use());
  key.add_value({request.max_new_tokens, request.sampler.temperature, request.sampler.top_p, request.sampler.seed, request.stop_ids,
                 model::GenerateOptions().max_batch})
      .add_value(prompts.ids)
      .add(prompts.tokens);
  return key.hex();
}

/// Answers the prompts batch by batch. A batch depends on its own prompts alone, so that it is the same wherever the command begins.
void answer_all(const GenerateOptions& options, const methods::BaseModel& base, const methods::AdaptedModel& model, const Prompts& prompts,
                std::size_t& done, LineOutput& output, Progress& progress) {
  const auto on_token = [&](std::int64_t, std::int32_t) {
    progress.advance(1, "");
    return true;
  };
  NoProgress quiet;  // for passes that only look at prompts
  const auto kept = done, batch_size = static_cast<std::size_t>(model::GenerateOptions().max_batch);
  for (std::size_t first = kept - kept % batch_size; first < prompts.ids.size(); first += batch_size) {
    const auto end = std::min(prompts.ids.size(), first + batch_size);
    const auto some = std::span(prompts.tokens).subspan(first, end - first);
    const auto names = std::span(prompts.names).subspan(first, end - first);
    model.forget_prompts();
    const model::GenerateOptions generate{.groups = model.groups_of(some, quiet),
                                          .first_index = static_cast<std::int64_t>(first),
                                          .names = {model.name, {names.begin(), names.end()}},
                                          .stop = process_stop()};
    const auto answers = model::generate(model.lm, some, options.request, generate, on_token);
    throw_if_stopped("while generating");
    std::string lines;
    for (std::size_t i = std::max(first, kept); i < end; ++i) {
      const auto& ids = answers[i - first];
      lines += io::dump_json({{"id", prompts.ids[i]}, {"text", base.tokenizer.decode(ids, true)}, {"ids", ids}}, "result") + "\n";
    }
    output.write(lines);
    done = end;
  }
}

void run_file(const GenerateOptions& options, const Prompts& prompts, LineOutput& output, const methods::BaseModel& base,
              const methods::AdaptedModel& model) {
  const auto total = static_cast<std::int64_t>(prompts.ids.size());
  auto progress = options.common.progress();
  auto done = static_cast<std::size_t>(output.take_up([&] { return run_key(base, options, prompts); }, progress));
  const auto most = std::min(options.request.max_new_tokens, base.lm.spec().max_positions);  // of one answer
  progress.begin("generate", (total - static_cast<std::int64_t>(done)) * most, "tokens at most");
  output.complete(done, total, "prompts", [&] {
    answer_all(options, base, model, prompts, done, output, progress);
    progress.end();
  });
}

void run(GenerateOptions& options) {
  if (options.prompt.has_value() == !options.input.empty()) fail(ErrorKind::kUsage, "give either --prompt or --input");
  LineOutput output(options.output, options.force);  // before the work
  const auto base = options.common.load({options.adapters.source});
  Prompts prompts;
  if (!options.input.empty()) prompts = read_prompts(base, options.input);
  auto progress = options.common.progress();
  const auto model = methods::adapted_model(base, options.adapters.use(), progress);
  options.request.stop_ids = data::stop_ids(base.tokenizer, base.format);
  options.request.sampler.seed = options.common.seed;
  options.prompt ? run_prompt(options, base, model) : run_file(options, prompts, output, base, model);
}

}  // namespace

/// quiver generate --prompt TEXT | --input prompts.jsonl
void add_generate_command(CLI::App& app) {
  auto [command, options] = add_verb<GenerateOptions>(
      app, "generate", "Answer a prompt (or continue it, with --no-chat), or the {\"id\",\"prompt\"} lines of a file", Reads::kText, run);
  add_base_weights_option(command, options.common);
  add_adapter_options(command, options.adapters);
  command.add_option("--prompt", options.prompt,
                     "The user's message, or with --no-chat text to continue; the answer streams to standard output");
  auto* input =
      command.add_option("--input", options.input, "Lines of {\"prompt\"} or {\"messages\"}, .jsonl or .jsonl.zst; - is standard input");
  command
      .add_option("--output", options.output,
                  "Answers to --input, a JSON line each; - is standard output; an interrupted run goes on from OUTPUT.parts")
      ->needs(input);
  command.add_flag("--force", options.force, "Overwrite the output")->needs("--output");
  add_generation_options(command, options.request);
}

}  // namespace quiver::cli
