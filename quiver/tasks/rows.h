// What the readers of tasks share: draws of rows, and the number of few-shot examples.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tasks/eval_task.h"

namespace quiver::tasks {

/// Between few-shot examples, and before the prompt.
inline constexpr const char* kBetween = "\n\n";

/// The first `count` in an order drawn by the seed; all of them, as they are, if count is 0.
template <typename Item>
std::vector<Item> drawn(std::vector<Item> items, std::int64_t count, std::uint64_t seed, const std::string& stream) {
  if (count <= 0 || count >= std::ssize(items)) return items;
  RandomStream(seed, stream).shuffle(items);
  items.resize(static_cast<std::size_t>(count));
  return items;
}

/// `wanted`, or an error of kind kUsage where a task has only `most` of what examples are made of.
inline std::int64_t checked_shots(const std::string& task, std::int64_t wanted, std::int64_t most, std::string_view what) {
  if (wanted < 0 || wanted > most)
    fail(ErrorKind::kUsage, "task '{}' has {} {}; {} few-shot examples are wanted: ask for 0 to {}", task, most, what, wanted, most);
  return wanted;
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
