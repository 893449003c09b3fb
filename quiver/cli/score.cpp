#include "quiver/eval/score.h"

#include <algorithm>
#include <span>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cli/line_output.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/prompt_format.h"
#include "quiver/io/json.h"
#include "quiver/methods/adapted_model.h"

namespace quiver::cli {
namespace {

struct ScoreOptions {
  CommonOptions common;
  AdapterOptions adapters;
  std::string input = "-";
  std::string output = "-";
  bool force = false;
};

/// A line of --input: {"context", "continuation"}, or {"messages", "continuation"} with the user's message last.
forest::Sequence encode(const methods::BaseModel& base, const nlohmann::json& row, const std::string& where) {
  const auto continuation = io::require_string(row, "continuation", where);
  if (!row.contains("messages"))
    return data::encode_request(base.tokenizer, base.format, io::require_string(row, "context", where), continuation, where);
  if (row.contains("context")) fail(ErrorKind::kBadFormat, "{}: the row has both 'messages' and 'context'; expected one of them", where);
  return data::encode_request(base.tokenizer, base.format, data::read_request(row.at("messages"), where), continuation, where);
}

/// The lines of --input, encoded.
struct Requests {
  std::vector<nlohmann::json> ids;
  std::vector<std::string> names;  // for messages
  std::vector<forest::Sequence> sequences;
};

Requests read_requests(const methods::BaseModel& base, const std::string& input) {
  Requests requests;
  io::JsonLinesReader reader(input);
  while (const auto row = reader.next()) {
    const auto where = row_name(*row, reader.where());
    requests.names.push_back(where);
    requests.ids.push_back(row->contains("id") ? row->at("id") : nlohmann::json(requests.ids.size()));
    requests.sequences.push_back(encode(base, *row, where));
  }
  eval::check_context(base.lm, requests.sequences);
  return requests;
}

constexpr std::int64_t kRunRows = 8192;  // of the requests whose lines are written together: a few batches

std::string run_key(const methods::BaseModel& base, const methods::AdapterUse& use, const Requests& requests) {
  auto key = methods::begin_run_key("score-1", base, use);
  key.add_value(kRunRows).add_value(requests.ids);
  for (const auto& sequence : requests.sequences) key.add_value(sequence.num_targets).add(std::span(&sequence.tokens, 1));
  return key.hex();
}

std::string line_of(const nlohmann::json& id, const eval::SequenceScore& score) {
  const nlohmann::json row = {{"id", id},
                              {"logprob", score.log_prob},
                              {"num_tokens", score.token_log_probs.size()},
                              {"token_logprobs", score.token_log_probs},
                              {"is_greedy", score.is_greedy}};
  return io::dump_json(row, "result") + "\n";
}

/// Scores the requests run by run. Groups and scores of a run depend on its own requests alone, so that a run is the same wherever the
/// command begins.
void score_all(const methods::AdaptedModel& model, Requests& requests, std::size_t& done, LineOutput& output, Progress& progress) {
  const auto kept = done;
  NoProgress quiet;  // for passes that only look at prompts
  std::size_t first = 0;
  for (const auto end : eval::score_runs(requests.sequences, kRunRows)) {
    const auto begin = std::exchange(first, end);
    if (end <= kept) continue;
    const auto sequences = std::span(requests.sequences).subspan(begin, end - begin);
    model.forget_prompts();
    const auto leases = model.assign_groups(sequences, quiet);
    const auto names = std::span(requests.names).subspan(begin, end - begin);
    const auto scores = eval::score_sequences(model.lm, sequences, {.names = {model.name, {names.begin(), names.end()}}}, progress);
    std::string lines;
    for (std::size_t i = std::max(begin, kept); i < end; ++i) lines += line_of(requests.ids[i], scores[i - begin]);
    output.write(lines);
    done = end;
  }
}

void run(ScoreOptions& options) {
  LineOutput output(options.output, options.force);  // before the work
  const auto base = options.common.load({options.adapters.source});
  auto requests = read_requests(base, options.input);
  auto progress = options.common.progress();
  const auto use = options.adapters.use();
  const auto model = methods::adapted_model(base, use, progress);
  const auto total = static_cast<std::int64_t>(requests.ids.size());
  auto done = static_cast<std::size_t>(output.take_up([&] { return run_key(base, use, requests); }, progress));
  progress.begin("score", total, "requests");
  progress.resume(static_cast<std::int64_t>(done));
  output.complete(done, total, "requests", [&] {
    score_all(model, requests, done, output, progress);
    progress.end();
  });
}

}  // namespace

/// quiver score --base B --input requests.jsonl [--output scores.jsonl]
void add_score_command(CLI::App& app) {
  auto [command, options] = add_verb<ScoreOptions>(
      app, "score", "Log-likelihood of answers (or continuations, with --no-chat): {\"id\",\"context\",\"continuation\"} lines in",
      Reads::kText, run);
  add_base_weights_option(command, options.common);
  add_adapter_options(command, options.adapters);
  add_former_temperature(command, options.adapters.flags);
  command.add_option("--input", options.input, "Requests, .jsonl or .jsonl.zst; - is standard input");
  command.add_option("--output", options.output,
                     "Scores, a JSON line each; - is standard output; an interrupted run goes on from OUTPUT.parts");
  command.add_flag("--force", options.force, "Overwrite the output")->needs("--output");
}

}  // namespace quiver::cli
