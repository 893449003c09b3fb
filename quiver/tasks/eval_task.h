// What is asked of a model in an evaluation, and how its answers are judged.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/data/tasks.h"
#include "quiver/metrics/exact_match.h"

namespace quiver::tasks {

/// The group of tasks of a user's own files.
inline constexpr const char* kOwnGroup = "own";

/// How a task is posed.
enum class Kind {
  kChoice,   ///< the likeliest of several continuations: acc, acc_norm, acc_bytes
  kAnswer,   ///< the likelihood of the reference and a generated answer: nll, rouge_l, exact_match
  kProgram,  ///< a generated program, which tests judge: pass@k
  kText,     ///< the likelihood of a whole text: word_perplexity, byte_perplexity, bits_per_byte
};

/// How answers are generated, where the task says so. What is left out is the run's.
struct AnswerSettings {
  std::optional<std::int64_t> max_new_tokens = {};
  std::vector<std::string> until = {};     ///< an answer ends before the first of these
  std::optional<double> temperature = {};  ///< 0 is greedy
  std::optional<double> top_p = {};
  std::optional<std::int64_t> num_samples = {};  ///< answers to each prompt, for pass@k
};

/// What a generated program stands between before it runs: before + answer + after.
struct ProgramTest {
  std::string before, after;
};

using metrics::ExactMatchOptions;

/// A task with its rows.
struct EvalTask {
  std::string name;     ///< "arc_easy", "bbh/navigate"
  std::string group;    ///< what --tasks calls all of its like: "mc", "sni", "upstream", "bbh"
  std::string section;  ///< of results: "train", "instruction", "choice", "answer", "program", "text"
  Kind kind = Kind::kAnswer;
  std::string version = "1";
  std::int64_t num_available = 0;  ///< rows before a limit drew some of them
  std::int64_t num_fewshot = 0;    ///< solved examples that stand before each prompt
  /// The text is continued as it is, also by a base with a chat template.
  bool is_bare = false;
  bool scores_target = true;  ///< kAnswer: the likelihood of the reference is of interest
  std::vector<std::string> metrics = {};
  std::vector<data::Question> questions = {};  ///< kChoice
  std::vector<data::Example> examples = {};    ///< kAnswer, kProgram; kText: the text is the target
  std::vector<ProgramTest> programs = {};      ///< kProgram, one for each example
  AnswerSettings answers = {};
  ExactMatchOptions exact_match = {};
  nlohmann::json config = nlohmann::json::object();  ///< how prompts are made, for the record
  std::vector<std::string> warnings = {};            ///< what a reader of the results should know

  std::size_t num_rows() const { return kind == Kind::kChoice ? questions.size() : examples.size(); }
};

}  // namespace quiver::tasks
