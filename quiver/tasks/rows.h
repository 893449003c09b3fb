// What the readers of tasks share: few-shot examples, and what texts are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tasks/eval_task.h"
#include "quiver/tasks/pack.h"

namespace quiver::tasks {

/// Between few-shot examples, and before the prompt.
inline constexpr const char* kBetween = "\n\n";

/// `wanted`, or an error of kind kUsage where a task has only `most` of what examples are made of.
inline std::int64_t checked_shots(const std::string& task, std::int64_t wanted, std::int64_t most, std::string_view what) {
  if (wanted < 0 || wanted > most)
    fail(ErrorKind::kUsage, "task '{}' has {} {}; {} few-shot examples are wanted: ask for 0 to {}", task, most, what, wanted, most);
  return wanted;
}

/// Takes task.num_fewshot items for few-shot examples: of `others`, or of `asked` where there are no others.
template <typename Item>
std::vector<Item> take_shots(std::vector<Item>& asked, std::vector<Item> others, const EvalTask& task, const RowChoice& rows) {
  const bool are_asked = others.empty();
  auto& pool = are_asked ? asked : others;
  checked_shots(task.name, task.num_fewshot, std::ssize(pool) - (are_asked ? 1 : 0),
                are_asked ? "rows beside one that is asked" : "training rows");
  if (task.num_fewshot == 0) return {};
  RandomStream(rows.seed, "few-shot/" + task.name).shuffle(pool);
  std::vector<Item> shots(pool.begin(), pool.begin() + static_cast<std::ptrdiff_t>(task.num_fewshot));
  if (are_asked) pool.erase(pool.begin(), pool.begin() + static_cast<std::ptrdiff_t>(task.num_fewshot));
  return shots;
}

/// The task's questions: few-shot examples before each, solved, and of the rest as many as are wanted.
inline void set_questions(EvalTask& task, std::vector<data::Question> asked, std::vector<data::Question> others, const RowChoice& rows) {
  std::string before;
  for (const auto& shot : take_shots(asked, std::move(others), task, rows)) {
    const auto right = static_cast<std::size_t>(shot.label);
    before += shot.contexts[right] + shot.continuations[right] + kBetween;
  }
  task.num_available = std::ssize(asked);
  task.questions = data::sample(std::move(asked), rows.limit, rows.seed, task.name);
  for (auto& question : task.questions) {
    for (auto& context : question.contexts) context.insert(0, before);
  }
}

/// The metrics of texts, all of which a text has.
inline constexpr const char* kTextMetrics[] = {"word_perplexity", "byte_perplexity", "bits_per_byte"};

/// Makes a task one of texts. A text is read bare, and without examples. Throws kUsage where examples are wanted.
inline void make_text_task(EvalTask& task) {
  task.kind = Kind::kText;
  task.section = "text";
  task.is_bare = true;
  task.num_fewshot = checked_shots(task.name, task.num_fewshot, 0, "solved examples, being texts");
  task.metrics.assign(std::begin(kTextMetrics), std::end(kTextMetrics));
}

/// One solved example: a space is put between source and target where neither brings white space (data::encode_example).
inline std::string solved(const std::string& source, const std::string& target) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
  const bool has_space = (!source.empty() && is_space(source.back())) || (!target.empty() && is_space(target.front()));
  return source + (has_space ? "" : " ") + target;
}

}  // namespace quiver::tasks
