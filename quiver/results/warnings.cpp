#include "quiver/results/warnings.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/results/statistics.h"

namespace quiver::results {
namespace {

/// Student's distribution with so many degrees of freedom is the normal one to six digits.
constexpr double kNormalDegrees = 1e6;

using SampleList = std::vector<const Sample*>;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const auto first = text.find_first_not_of(kSpace);
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// The value that most of the texts have, and how many do.
std::pair<std::string_view, std::int64_t> most_frequent(const std::vector<std::string_view>& texts) {
  std::map<std::string_view, std::int64_t> counts;
  std::pair<std::string_view, std::int64_t> most = {"", 0};
  for (const auto text : texts) {
    if (const auto count = ++counts[text]; count > most.second) most = {text, count};
  }
  return most;
}

std::optional<std::string> near_chance(const SampleList& samples) {
  std::vector<double> values, chances;
  for (const auto* sample : samples) {
    if (sample->log_probs.empty() || sample->metrics.empty()) continue;
    const double value = sample->metrics.front().second;
    if (value != 0 && value != 1) return std::nullopt;
    values.push_back(value);
    chances.push_back(1 / static_cast<double>(sample->log_probs.size()));
  }
  if (std::ssize(values) < kFewestForChance) return std::nullopt;
  const auto count = static_cast<double>(values.size());
  double variance = 0;  // of the mean by guessing
  for (const double chance : chances) variance += chance * (1 - chance) / (count * count);
  const double reach = student_t_quantile(0.975, kNormalDegrees) * std::sqrt(variance);
  const double mean = estimate_mean(values).mean, chance = estimate_mean(chances).mean;
  if (std::abs(mean - chance) > reach) return std::nullopt;
  return format("{:.1f} % of {} right, and guessing gives {:.1f} to {:.1f} %", 100 * mean, values.size(),
                100 * std::max(chance - reach, 0.0), 100 * std::min(chance + reach, 1.0));
}

/// The kind and the text of what is wrong with answers.
std::optional<std::pair<std::string, std::string>> poor_answers(const SampleList& samples) {
  std::vector<std::string_view> answers, targets;
  for (const auto* sample : samples) {
    if (!sample->prediction) continue;
    answers.push_back(trimmed(*sample->prediction));
    if (!sample->targets.empty()) targets.push_back(sample->targets.front());
  }
  const auto count = static_cast<std::int64_t>(answers.size());
  const auto is_share = [&](std::int64_t part, double share) { return static_cast<double>(part) >= share * static_cast<double>(count); };
  const auto empty = std::ranges::count(answers, std::string_view());
  if (count >= kFewestForEmpty && is_share(empty, kMostEmpty)) {
    return std::pair("empty answers", format("{} of {} answers are empty", empty, count));
  }
  const auto [answer, equal] = most_frequent(answers);
  if (count < kFewestForEqual || answer.empty() || !is_share(equal, kMostEqual)) return std::nullopt;
  if (targets.empty() || is_share(most_frequent(targets).second, kMostEqual)) return std::nullopt;
  return std::pair("equal answers", format("{} of {} answers are the same text, and the targets are not", equal, count));
}

}  // namespace

std::vector<Warning> find_warnings(const Results& results) {
  std::vector<std::pair<std::string_view, std::string_view>> parts;  // section and task
  std::map<std::pair<std::string_view, std::string_view>, std::map<std::string_view, SampleList>> samples;
  for (const auto& sample : results.samples) {
    const std::pair part(std::string_view(sample.section), std::string_view(sample.task));
    auto& by_method = samples[part];
    if (by_method.empty()) parts.push_back(part);
    by_method[sample.method].push_back(&sample);
  }
  std::vector<Warning> warnings;
  for (const auto& part : parts) {
    for (const auto& method : results.methods) {
      const auto found = samples[part].find(method.name);
      if (found == samples[part].end()) continue;
      const auto warn = [&](const std::string& kind, const std::string& text) {
        warnings.push_back({kind, std::string(part.first), method.name, std::string(part.second), text});
      };
      if (const auto text = near_chance(found->second)) warn("near chance", *text);
      if (const auto poor = poor_answers(found->second)) warn(poor->first, poor->second);
    }
  }
  return warnings;
}

}  // namespace quiver::results
