#include "quiver/tasks/paper_prompts.h"

#include <algorithm>
#include <ranges>
#include <string_view>

namespace quiver::tasks {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";

/// Where the line "def NAME(" of the function begins.
std::optional<std::size_t> find_function(std::string_view code, const std::string& name) {
  const auto head = "def " + name;
  for (auto at = code.find(head); at != std::string_view::npos; at = code.find(head, at + 1)) {
    const auto after = code.substr(at + head.size());
    if ((at == 0 || code[at - 1] == '\n') && (after.starts_with('(') || after.starts_with(" ("))) return at;
  }
  return std::nullopt;
}

/// The end of a head that begins at `begin`, behind the colon after its parentheses.
std::optional<std::size_t> head_end(std::string_view code, std::size_t begin) {
  int open = 0;
  for (auto i = begin; i < code.size(); ++i) {
    if (code[i] == '(' || code[i] == '[' || code[i] == '{') ++open;
    if (code[i] == ')' || code[i] == ']' || code[i] == '}') --open;
    if (code[i] == ':' && open == 0) return i + 1;
  }
  return std::nullopt;
}

/// What stands before a function; its imports alone where that is another function or a class.
std::string beginning_of(std::string_view before) {
  std::string imports;
  bool has_others = false;
  for (const auto part : std::views::split(before, '\n')) {
    const std::string_view line(part.begin(), part.end());
    has_others = has_others || line.starts_with("def ") || line.starts_with("class ");
    if (line.starts_with("import ") || line.starts_with("from ")) imports.append(line).append("\n");
  }
  return has_others ? imports : std::string(before);
}

}  // namespace

std::string paper_bbh_prompt(const std::string& input) { return "Solve the following problem: " + input + "\nAnswer:"; }

AnswerSettings paper_bbh_answers() { return {.max_new_tokens = 128, .until = {"\n\n"}, .temperature = 0}; }

AnswerSettings paper_program_answers() { return {.max_new_tokens = 300, .until = {"\n\n", "\ndef"}, .temperature = 0.05, .top_p = 0.95}; }

std::string paper_humaneval_prompt(const std::string& prompt) {
  const auto begin = prompt.find_first_not_of(kSpace);
  return begin == std::string::npos ? "" : prompt.substr(begin);
}

std::optional<std::string> paper_mbpp_prompt(const std::string& text, const std::vector<std::string>& tests, const std::string& solution,
                                             const std::string& entry_point) {
  auto code = solution;
  std::erase(code, '\r');
  const auto begin = find_function(code, entry_point);
  const auto end = begin ? head_end(code, *begin) : std::nullopt;
  if (!end) return std::nullopt;
  auto prompt = beginning_of(std::string_view(code).substr(0, *begin)) + code.substr(*begin, *end - *begin);
  prompt += "\n\t\"\"\"\n\t" + text + "\n";
  for (const auto& test : tests) prompt += "\t" + test + "\n";
  return prompt + "\t\"\"\"\n";
}

void mark_paper(EvalTask& task, const std::string& doc_to_text) {
  task.version = "paper-1";
  task.config["prompts"] = "paper";
  task.config["doc_to_text"] = doc_to_text;
}

}  // namespace quiver::tasks
