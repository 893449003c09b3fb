#include "quiver/eval/score.h"
#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"

namespace quiver::cli {
namespace {

struct ScoreOptions {
  CommonOptions common;
  recipes::AdapterChoice choice;
  std::string input = "-";
  std::string output = "-";
  bool force = false;
};

/// A line of --input: {"context", "continuation"}, or {"messages", "continuation"} with the user's message last.
forest::Sequence encode(const recipes::BaseModel& base, const nlohmann::json& row, const std::string& where) {
  const auto continuation = io::require_string(row, "continuation", where);
  if (!row.contains("messages"))
    return data::encode_request(base.tokenizer, base.format, io::require_string(row, "context", where), continuation, where);
  if (row.contains("context")) fail(ErrorKind::kBadFormat, "{}: the row has both 'messages' and 'context'; expected one of them", where);
  return data::encode_request(base.tokenizer, base.format, data::read_request(row.at("messages"), where), continuation, where);
}

void run(const ScoreOptions& options) {
  check_output(options.output, options.force);  // before the work
  const auto base = options.common.load();
  std::vector<nlohmann::json> ids;
  std::vector<forest::Sequence> sequences;
  io::JsonLinesReader reader(options.input);
  while (const auto row = reader.next()) {
    ids.push_back(row->contains("id") ? row->at("id") : nlohmann::json(ids.size()));
    sequences.push_back(encode(base, *row, row_name(*row, reader.where())));
  }
  eval::check_context(base.llama, sequences);
  auto progress = options.common.progress();
  const auto model = recipes::adapted_model(base, options.choice, progress);
  model.assign_groups(sequences, progress);
  progress.begin("score", static_cast<std::int64_t>(sequences.size()), "requests");
  const auto scores = eval::score_sequences(model.llama, sequences, {}, progress);
  progress.end();
  std::string text;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const nlohmann::json row = {{"id", ids[i]},
                                {"logprob", scores[i].log_prob},
                                {"num_tokens", scores[i].token_log_probs.size()},
                                {"token_logprobs", scores[i].token_log_probs},
                                {"is_greedy", scores[i].is_greedy}};
    text += io::dump_json(row, "result") + "\n";
  }
  write_output(options.output, text, options.force);
}

}  // namespace

/// quiver score --base B --input requests.jsonl [--output scores.jsonl]
void add_score_command(CLI::App& app) {
  auto options = std::make_shared<ScoreOptions>();
  auto* command = app.add_subcommand(
      "score", "Log-likelihood of answers (or continuations, with --no-chat): {\"id\",\"context\",\"continuation\"} lines in");
  add_common_options(*command, options->common);
  add_format_options(*command, options->common);
  add_adapter_options(*command, options->choice);
  command->add_option("--input", options->input, "Requests, .jsonl or .jsonl.zst; - is standard input")->capture_default_str();
  command->add_option("--output", options->output, "Scores, a JSON line each; - is standard output")->capture_default_str();
  command->add_flag("--force", options->force, "Overwrite the output");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
