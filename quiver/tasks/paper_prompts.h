// Prompts and settings of generation as the paper evaluates with them (Ostapenko et al. 2024, table 1; the authors' code says the details).
#pragma once

#include <optional>
#include <string>

#include "quiver/tasks/eval_task.h"

namespace quiver::tasks {

/// Rows of a task of Big-Bench Hard that are its few-shot examples.
inline constexpr std::int64_t kPaperBbhShots = 5;

/// "Solve the following problem: INPUT", a line break, "Answer:".
std::string paper_bbh_prompt(const std::string& input);

/// Greedy, 128 tokens, up to a blank line.
AnswerSettings paper_bbh_answers();

/// Temperature 0.05, top-p 0.95, 300 tokens, up to a blank line or the next function.
AnswerSettings paper_program_answers();

/// The prompt without white space before it.
std::string paper_humaneval_prompt(const std::string& prompt);

/// The head of the function `entry_point` as the reference solution begins, and a docstring of the task and its tests, indented by a tab.
/// Nothing if the solution has no such function. Where another function or a class stands before it, only imports are kept of what does.
std::optional<std::string> paper_mbpp_prompt(const std::string& text, const std::vector<std::string>& tests, const std::string& solution,
                                             const std::string& entry_point);

/// Says in the task's version and configuration that its prompts are the paper's.
void mark_paper(EvalTask& task, const std::string& doc_to_text);

}  // namespace quiver::tasks
