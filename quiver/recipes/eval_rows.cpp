#include "quiver/recipes/eval_rows.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/data/encode.h"
#include "quiver/data/prompt_format.h"
#include "quiver/metrics/rolling_windows.h"

namespace quiver::recipes {
namespace {

/// Cuts a sequence at its left, after BOS, so that all but its last token fit into the context. Returns whether it had to.
bool fit_context(forest::Sequence& sequence, const methods::BaseModel& base, const std::string& where) {
  const auto context = base.lm.spec().max_positions;
  const auto size = std::ssize(sequence.tokens);
  if (size - 1 <= context) return false;
  if (sequence.num_targets + 1 > context) {
    fail(ErrorKind::kUsage, "{}: the target alone has {} tokens; the model's context is {}", where, sequence.num_targets, context);
  }
  const auto bos = base.tokenizer.bos_id();
  const bool has_bos = bos.has_value() && sequence.tokens.front() == *bos;
  const auto first = sequence.tokens.begin() + (has_bos ? 1 : 0);
  sequence.tokens.erase(first, first + static_cast<std::ptrdiff_t>(size - 1 - context));
  return true;
}

/// `end` is the token that ends a choice, which the paper's scoring counts; without it choices are encoded as lm-eval encodes them.
void add_question(EvalRows& rows, const methods::BaseModel& base, const data::PromptFormat& format, const data::Question& question,
                  std::optional<std::int32_t> end) {
  bool is_cut = false;
  for (std::size_t i = 0; i < question.choices.size(); ++i) {
    // The space between context and choice is for one running text; in a conversation the template separates them, as lm-eval has it.
    std::string_view continuation = question.continuations[i];
    if (format.chat && continuation.starts_with(' ')) continuation.remove_prefix(1);
    auto sequence = end ? data::encode_request(base.tokenizer, format, question.contexts[i], continuation, question.where)
                        : data::encode_choice(base.tokenizer, format, question.contexts[i], continuation, question.where);
    if (end) {
      sequence.tokens.push_back(*end);
      ++sequence.num_targets;
    }
    is_cut = fit_context(sequence, base, question.where) || is_cut;
    rows.sequences.push_back(std::move(sequence));
    rows.names.push_back(question.where);
  }
  rows.num_cut += is_cut ? 1 : 0;
}

/// `last_answer` is data::of_last_answer(format).
void add_example(EvalRows& rows, const methods::BaseModel& base, const data::PromptFormat& format, const data::PromptFormat& last_answer,
                 const data::Example& example, const RowOptions& options) {
  const auto& task = rows.task;
  const auto answer = options.generates ? answer_length(task, options) : 0;
  const auto length = methods::longest_prompt(base, options.max_length == 0 ? base.lm.spec().max_positions : options.max_length, answer);
  bool is_cut = false;
  rows.names.push_back(example.where);
  if (task.scores_target) {
    auto sequence = data::encode_example(base.tokenizer, last_answer, example, 0);
    if (std::ssize(sequence.tokens) > length) {
      if (sequence.num_targets >= length)
        fail(ErrorKind::kUsage, "{}: the target alone has {} tokens; {} are left to prompt and target", example.where, sequence.num_targets,
             length);
      sequence = data::encode_example(base.tokenizer, last_answer, example, length);
      is_cut = true;
    }
    rows.sequences.push_back(std::move(sequence));
  }
  if (options.generates) {
    auto prompt = data::encode_prompt(base.tokenizer, format, example, 0);
    if (std::ssize(prompt) > length) {
      prompt = data::encode_prompt(base.tokenizer, format, example, length);
      is_cut = true;
    }
    rows.prompts.push_back(std::move(prompt));
  }
  rows.num_cut += is_cut ? 1 : 0;
}

/// A text as windows, whose log-likelihoods sum up to its own.
void add_text(EvalRows& rows, const methods::BaseModel& base, const data::Example& example, const RowOptions& options) {
  const auto& tokenizer = base.tokenizer;
  const auto prefix = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  if (!prefix)
    fail(ErrorKind::kUnsupported, "{}: a text is scored after BOS or EOS, and the base's tokenizer has neither of both", example.where);
  const auto& text = example.targets[0];
  const auto start = tokenizer.decode(std::span(&*prefix, 1));
  // A tokenizer that puts BOS first does not so before a text that begins with it, as in lm-evaluation-harness.
  const auto tokens = text.starts_with(start) ? tokenizer.encode(text) : data::encode_text(tokenizer, text);
  const auto context = base.lm.spec().max_positions;
  const auto length = options.max_length == 0 ? context : std::min(options.max_length, context);
  const auto windows = metrics::rolling_windows(tokens, {.prefix_token = *prefix, .max_length = length});
  for (const auto& window : windows) {
    auto& sequence = rows.sequences.emplace_back();
    sequence.tokens = window.context;
    sequence.tokens.insert(sequence.tokens.end(), window.continuation.begin(), window.continuation.end());
    sequence.num_targets = std::ssize(window.continuation);
    rows.names.push_back(example.where);
  }
}

/// The token that the paper's scoring puts behind a choice; nothing for another scoring.
std::optional<std::int32_t> scored_end(const methods::BaseModel& base, const data::PromptFormat& format, const tasks::EvalTask& task,
                                       const RowOptions& options) {
  if (options.scoring != ChoiceScoring::kPaper || task.questions.empty()) return std::nullopt;
  const auto ends = data::stop_ids(base.tokenizer, format);
  if (ends.empty())
    fail(ErrorKind::kUnsupported, "the paper's scoring needs an EOS, which the base's tokenizer lacks: give `scoring=lm-eval`");
  return ends.front();
}

template <typename Number>
void add_numbers(Sha256& hash, const std::vector<Number>& numbers) {
  const auto size = static_cast<std::uint64_t>(numbers.size());
  hash.update(std::as_bytes(std::span(&size, 1)));
  hash.update(std::as_bytes(std::span(numbers)));
}

std::string fingerprint_of(const EvalRows& rows) {
  Sha256 hash;
  for (const auto& sequence : rows.sequences) {
    add_numbers(hash, sequence.tokens);
    add_numbers(hash, std::vector<std::int64_t>{sequence.num_targets});
  }
  for (const auto& prompt : rows.prompts) add_numbers(hash, prompt);
  return hash.hex();
}

}  // namespace

std::int64_t answer_length(const tasks::EvalTask& task, const RowOptions& options) {
  return task.answers.max_new_tokens.value_or(options.max_new_tokens);
}

const char* name_of(ChoiceScoring scoring) { return scoring == ChoiceScoring::kPaper ? "paper" : "lm-eval"; }

data::PromptFormat format_of(const methods::BaseModel& base, const tasks::EvalTask& task) {
  return task.is_bare ? data::PromptFormat{} : base.format;
}

EvalRows encode_rows(const methods::BaseModel& base, tasks::EvalTask task, const RowOptions& options) {
  EvalRows rows{.task = std::move(task)};
  const auto format = format_of(base, rows.task), last_answer = data::of_last_answer(format);
  const auto end = scored_end(base, format, rows.task, options);
  for (const auto& question : rows.task.questions) {
    add_question(rows, base, format, question, end);
    rows.first_sequence.push_back(rows.sequences.size());
  }
  const bool are_texts = rows.task.kind == tasks::Kind::kText;
  for (const auto& example : rows.task.examples) {
    if (are_texts) {
      add_text(rows, base, example, options);
    } else {
      add_example(rows, base, format, last_answer, example, options);
    }
    rows.first_sequence.push_back(rows.sequences.size());
  }
  if (are_texts && rows.sequences.empty())
    fail(ErrorKind::kUsage, "task '{}': the texts have no tokens; a perplexity needs one at least", rows.task.name);
  rows.fingerprint = fingerprint_of(rows);
  return rows;
}

}  // namespace quiver::recipes
