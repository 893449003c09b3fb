// The rows of an evaluation as tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quiver/forest/token_forest.h"
#include "quiver/methods/base_model.h"
#include "quiver/tasks/eval_task.h"

namespace quiver::recipes {

/// How the likeliest choice of a question is found.
enum class ChoiceScoring {
  kLmEval,  ///< the sum of log-probabilities, as it is, per character and per byte (lm-evaluation-harness)
  kPaper,   ///< their mean over the choice's tokens and EOS (Ostapenko et al. 2024, appendix 9)
};

/// A task, tokenised once for all methods.
struct EvalRows {
  tasks::EvalTask task;
  std::vector<forest::Sequence> sequences;         ///< choice: all choices in order; text: all windows; else source and first target
  std::vector<std::vector<std::int32_t>> prompts;  ///< of answers and programs
  std::vector<std::string> names;                  ///< of the sequences, for messages
  std::vector<std::size_t> first_sequence = {0};   ///< of each row; the end of the last behind them
  std::int64_t num_cut = 0;                        ///< rows that lost tokens at their left, since the context is too short
  std::string fingerprint;                         ///< of all tokens
};

/// What rows are made for.
struct RowOptions {
  ChoiceScoring scoring = ChoiceScoring::kLmEval;
  bool generates = true;             ///< answers are wanted; else references alone are tokenised
  std::int64_t max_new_tokens = 64;  ///< where the task does not say
  std::int64_t max_length = 0;       ///< tokens of a sequence and of a prompt, at most; 0: the context
};

/// Tokenises a task. A row that is longer than the context is cut at its left, after BOS, and counted. A text is not cut: it becomes
/// windows as lm-evaluation-harness 0.4.13 makes them (metrics/rolling_windows.h), after BOS, or EOS where there is none.
/// Throws kUsage for a task of texts without a token, for a target that alone is longer than the context, for an answer that leaves no room
/// for a prompt, and as data::encode_request and data::encode_example.
EvalRows encode_rows(const methods::BaseModel& base, tasks::EvalTask task, const RowOptions& options);

/// How many tokens an answer may have.
std::int64_t answer_length(const tasks::EvalTask& task, const RowOptions& options);

/// "lm-eval" or "paper".
const char* name_of(ChoiceScoring scoring);

/// The format of a task's text: that of the base, or bare.
data::PromptFormat format_of(const methods::BaseModel& base, const tasks::EvalTask& task);

}  // namespace quiver::recipes
