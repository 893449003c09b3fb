// 10,000 pairs of texts by rouge-score, and what lm-evaluation-harness computes: tests/golden/metrics/README.md.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/metrics/choice.h"
#include "quiver/metrics/exact_match.h"
#include "quiver/metrics/filters.h"
#include "quiver/metrics/pass_at_k.h"
#include "quiver/metrics/perplexity.h"
#include "quiver/metrics/rolling_windows.h"
#include "quiver/metrics/rouge.h"
#include "quiver/metrics/stop.h"

namespace quiver::metrics {
namespace {

struct Pair {
  std::string target;
  std::string prediction;
  double f_measure = 0;
  bool is_normalized_equal = false;
};

const std::vector<Pair>& pairs() {
  static const auto rows = [] {
    io::JsonLinesReader reader("tests/golden/metrics/pairs.jsonl.zst");
    std::vector<Pair> read;
    while (const auto row = reader.next()) read.push_back({row->at(0), row->at(1), row->at(2), row->at(3) == 1});
    return read;
  }();
  return rows;
}

const nlohmann::json& golden() {
  static const auto value = [] {
    io::JsonLinesReader reader("tests/golden/metrics/lm_eval.jsonl.zst");
    return reader.next().value();
  }();
  return value;
}

/// Both texts of a pair as JSON, which shows every character.
std::string shown(std::size_t i) { return nlohmann::json({pairs()[i].target, pairs()[i].prediction}).dump(-1, ' ', true); }

ExactMatchOptions options_of(const nlohmann::json& row) {
  return {.ignore_case = row["ignore_case"],
          .ignore_punctuation = row["ignore_punctuation"],
          .ignore_numbers = row["ignore_numbers"],
          .regexes_to_ignore = row.value("regexes_to_ignore", std::vector<std::string>())};
}

TEST(GoldenPairs, RougeLIsRougeScores) {
  ASSERT_EQ(pairs().size(), 10'000u);
  for (std::size_t i = 0; i < pairs().size(); ++i) {
    const auto& pair = pairs()[i];
    EXPECT_NEAR(rouge_l(pair.target, pair.prediction).f_measure, pair.f_measure, 1e-12) << shown(i);
  }
}

TEST(GoldenPairs, NormalizedAnswersMatchAsDefined) {
  ASSERT_EQ(pairs().size(), 10'000u);
  for (std::size_t i = 0; i < pairs().size(); ++i) {
    const auto& pair = pairs()[i];
    EXPECT_EQ(has_normalized_answer(pair.prediction, std::vector{pair.target}), pair.is_normalized_equal) << shown(i);
  }
}

TEST(GoldenPairs, ExactMatchIsTheHarness) {
  ASSERT_EQ(golden()["exact_match"].size(), 24u);
  for (const auto& row : golden()["exact_match"]) {
    const ExactMatch metric(options_of(row["options"]));
    const auto expected = row["single"].get<std::string>();
    ASSERT_EQ(expected.size(), pairs().size());
    for (std::size_t i = 0; i < pairs().size(); ++i) {
      EXPECT_EQ(metric.matches_any(pairs()[i].prediction, std::vector{pairs()[i].target}), expected[i] == '1') << row["options"] << "\n"
                                                                                                               << shown(i);
    }
  }
}

TEST(GoldenPairs, ExactMatchOfSeveralReferencesIsTheHarness) {
  for (const auto& row : golden()["exact_match"]) {
    const ExactMatch metric(options_of(row["options"]));
    const auto expected = row["several"].get<std::string>();
    ASSERT_EQ(expected.size(), 2'000u);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      std::vector<std::string> references;
      for (std::size_t j = 5 * i; j < 5 * i + 5; ++j) references.push_back(pairs()[j].target);
      EXPECT_EQ(metric.matches_any(pairs()[5 * i].prediction, references), expected[i] == '1') << row["options"] << "\n" << shown(5 * i);
    }
  }
}

TEST(GoldenHarness, ChoosesTheSame) {
  ASSERT_EQ(golden()["choices"].size(), 300u);
  for (const auto& row : golden()["choices"]) {
    const auto scores = row["scores"].get<std::vector<double>>();
    const auto choices = row["choices"].get<std::vector<std::string>>();
    EXPECT_EQ(best_choice(scores), row["acc"]) << row;
    EXPECT_EQ(best_choice_normalized(scores, choices), row["acc_norm"]) << row;
    EXPECT_EQ(best_choice_per_byte(scores, choices), row["acc_bytes"]) << row;
    EXPECT_EQ(best_choice_by_mutual_info(scores, row["unconditional"].get<std::vector<double>>()), row["acc_mutual_info"]) << row;
    EXPECT_EQ(best_choice_per_token(row["token_log_probs"].get<std::vector<std::vector<double>>>()), row["per_token"]) << row;
  }
}

TEST(GoldenHarness, CountsTheSameWords) {
  const auto words = golden()["perplexity"]["words"].get<std::vector<std::int64_t>>();
  ASSERT_EQ(words.size(), 2'000u);
  for (std::size_t i = 0; i < words.size(); ++i) EXPECT_EQ(count_words(pairs()[i].target), words[i]) << shown(i);
}

TEST(GoldenHarness, HasTheSamePerplexities) {
  const auto& file = golden()["perplexity"];
  std::vector<TextScore> texts;
  for (std::size_t i = 0; i < file["scores"].size(); ++i) texts.push_back(text_score(pairs()[i].target, file["scores"][i]));
  ASSERT_EQ(file["parts"].size(), 4u);
  for (const auto& part : file["parts"]) {
    const auto some = std::span(texts).subspan(part["first"], part["count"]);
    const auto expect_near = [&](double value, const char* name) {
      const double expected = part[name];
      EXPECT_NEAR(value, expected, 1e-13 * expected) << name << " " << part;
    };
    expect_near(word_perplexity(some), "word_perplexity");
    expect_near(byte_perplexity(some), "byte_perplexity");
    expect_near(bits_per_byte(some), "bits_per_byte");
  }
}

TEST(GoldenHarness, LaysOutTheSameWindows) {
  ASSERT_EQ(golden()["windows"].size(), 120u);
  for (const auto& row : golden()["windows"]) {
    std::vector<std::int32_t> tokens(row["num_tokens"].get<std::size_t>());
    std::iota(tokens.begin(), tokens.end(), 100);
    auto windows = nlohmann::json::array();
    for (const auto& [context, continuation] :
         rolling_windows(tokens, {.prefix_token = 7, .max_length = row["max_length"], .context_length = row["context"]})) {
      windows.push_back({context, continuation});
    }
    EXPECT_EQ(windows, row["windows"]) << row;
  }
}

TEST(GoldenHarness, CutsAtTheSamePlaces) {
  const auto& answers = golden()["answers"];
  ASSERT_GT(answers["texts"].size(), 400u);
  for (const auto& row : answers["texts"]) {
    const std::size_t i = row["pair"];
    const auto& text = pairs()[i].prediction;
    for (std::size_t j = 0; j < answers["stops"].size(); ++j) {
      EXPECT_EQ(cut_at_stops(text, answers["stops"][j].get<std::vector<std::string>>()), row["cut"][j].get<std::string>()) << shown(i);
    }
    EXPECT_EQ(after_thinking(text, " a"), row["thought"].get<std::string>()) << shown(i);
    EXPECT_EQ(remove_whitespace(text), row["stripped"].get<std::string>()) << shown(i);
  }
}

/// The filter's answer, or null where the match that is asked for is not there.
nlohmann::json answer_of(const RegexFilter& filter, const std::string& text) {
  try {
    return filter.apply(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage) << error.what();
    return nullptr;
  }
}

TEST(GoldenHarness, FiltersTheSameAnswers) {
  const auto& answers = golden()["answers"];
  ASSERT_GT(answers["patterns"].size(), 15u);
  for (std::size_t p = 0; p < answers["patterns"].size(); ++p) {
    const std::string pattern = answers["patterns"][p];
    for (std::size_t s = 0; s < 3; ++s) {
      const RegexFilter filter({.pattern = pattern, .group_select = s == 2 ? -1 : static_cast<std::int64_t>(s), .fallback = " none "});
      for (const auto& row : answers["texts"]) {
        EXPECT_EQ(answer_of(filter, pairs()[row["pair"]].prediction), row["regex"][p][s])
            << pattern << " " << s << " " << shown(row["pair"]);
      }
    }
  }
}

TEST(GoldenPassAtK, IsTheExactFraction) {
  const auto cases = io::read_json_file("tests/golden/metrics/pass_at_k.json")["cases"];
  ASSERT_GT(cases.size(), 250u);
  for (const auto& row : cases) {
    EXPECT_NEAR(pass_at_k(row[0], row[1], row[2]), row[3].get<double>(), 1e-12) << row;
  }
}

}  // namespace
}  // namespace quiver::metrics
