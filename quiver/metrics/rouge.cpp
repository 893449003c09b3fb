#include "quiver/metrics/rouge.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/metrics/porter_stemmer.h"

namespace quiver::metrics {
namespace {

constexpr std::string_view kKelvinSign = "\xE2\x84\xAA";
constexpr std::string_view kDottedI = "\xC4\xB0";
constexpr std::size_t kLongestUnstemmed = 3;

std::int64_t longest_common_subsequence(std::span<const std::string> a, std::span<const std::string> b) {
  if (a.size() < b.size()) std::swap(a, b);
  // row[j] is the length for the tokens of a so far and the first j of b.
  std::vector<std::int64_t> row(b.size() + 1, 0);
  for (const auto& token : a) {
    std::int64_t diagonal = 0;  // row[j - 1] before this token
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto above = std::exchange(row[j], token == b[j - 1] ? diagonal + 1 : std::max(row[j], row[j - 1]));
      diagonal = above;
    }
  }
  return row.back();
}

RougeScore score_tokens(std::span<const std::string> target, std::span<const std::string> prediction) {
  if (target.empty() || prediction.empty()) return {};
  const auto common = static_cast<double>(longest_common_subsequence(target, prediction));
  RougeScore score;
  score.precision = common / static_cast<double>(prediction.size());
  score.recall = common / static_cast<double>(target.size());
  if (common > 0) {
    score.f_measure = 2 * score.precision * score.recall / (score.precision + score.recall);
  }
  return score;
}

}  // namespace

std::vector<std::string> rouge_tokens(std::string_view text) {
  std::vector<std::string> tokens;
  std::string token;
  const auto finish = [&] {
    if (token.empty()) return;
    tokens.push_back(token.size() > kLongestUnstemmed ? porter_stem(token) : token);
    token.clear();
  };
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const auto rest = text.substr(i);
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      token += c;
      ++i;
    } else if (c >= 'A' && c <= 'Z') {
      token += static_cast<char>(c - 'A' + 'a');
      ++i;
    } else if (rest.starts_with(kKelvinSign)) {
      token += 'k';
      i += kKelvinSign.size();
    } else if (rest.starts_with(kDottedI)) {
      token += 'i';  // and a combining dot, which is no letter
      finish();
      i += kDottedI.size();
    } else {
      finish();
      ++i;
    }
  }
  finish();
  return tokens;
}

RougeScore rouge_l(std::string_view target, std::string_view prediction) {
  return score_tokens(rouge_tokens(target), rouge_tokens(prediction));
}

double best_rouge_l(std::span<const std::string> targets, std::string_view prediction) {
  if (targets.empty()) fail(ErrorKind::kUsage, "Rouge-L needs at least one target to compare the prediction with");
  const auto predicted = rouge_tokens(prediction);
  double best = 0;
  for (const auto& target : targets) best = std::max(best, score_tokens(rouge_tokens(target), predicted).f_measure);
  return best;
}

}  // namespace quiver::metrics
