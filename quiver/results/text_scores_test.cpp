#include "quiver/results/text_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string>

#include "quiver/base/error.h"
#include "quiver/results/compare.h"
#include "quiver/results/lm_eval_form.h"
#include "quiver/results/summarize.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

constexpr double kLn2 = std::numbers::ln2;

Sample text(const std::string& method, const std::string& task, const std::string& id, double log_likelihood, std::int64_t words,
            std::int64_t bytes) {
  Sample sample{.section = "text", .method = method, .task = task, .id = id};
  sample.log_likelihood = log_likelihood;
  sample.num_words = words;
  sample.num_bytes = bytes;
  for (const char* metric : {"word_perplexity", "byte_perplexity", "bits_per_byte"})
    sample.metrics.emplace_back(metric, find_text_metric(metric)->value_of(sample));
  return sample;
}

/// Two methods on four texts of two tasks, one of them empty. In bits: base 8/4, 30/6, 0/0 and 10/10; "m" 4/4, 24/6, 0/0 and 20/10.
Results evaluated_texts() {
  using enum Better;
  return {.tasks = {{.name = "a", .kind = "text"}, {.name = "b", .kind = "text"}},
          .methods = {{"base"}, {"m"}},
          .metrics = {{.name = "word_perplexity", .better = kLower},
                      {.name = "byte_perplexity", .better = kLower},
                      {.name = "bits_per_byte", .better = kLower}},
          .samples = {text("base", "a", "1", -8 * kLn2, 2, 4), text("base", "a", "2", -30 * kLn2, 3, 6), text("base", "a", "3", 0, 1, 0),
                      text("base", "b", "1", -10 * kLn2, 4, 10), text("m", "a", "1", -4 * kLn2, 2, 4),
                      text("m", "a", "2", -24 * kLn2, 3, 6), text("m", "a", "3", 0, 1, 0), text("m", "b", "1", -20 * kLn2, 4, 10)}};
}

TEST(TextScores, AreThoseOfOneText) {
  const auto one = text("base", "a", "1", -8 * kLn2, 2, 4);
  EXPECT_DOUBLE_EQ(one.metrics[0].second, 16);
  EXPECT_DOUBLE_EQ(one.metrics[1].second, 4);
  EXPECT_DOUBLE_EQ(one.metrics[2].second, 2);
  EXPECT_EQ(find_text_metric("nll"), nullptr);
  EXPECT_TRUE(std::isnan(text("base", "a", "1", 0, 1, 0).metrics[2].second));
  EXPECT_EQ(text("base", "a", "1", 0, 1, 0).metrics[0].second, 1);
  EXPECT_TRUE(std::isnan(text("base", "a", "1", -500, 1, 100).metrics[0].second));  // e^500 is no number of a document
}

TEST(TextScores, WeighByLength) {
  auto results = evaluated_texts();
  summarize(results);
  const auto* words = results.find_summary("text", "base", "word_perplexity");
  ASSERT_NE(words, nullptr);
  EXPECT_DOUBLE_EQ(words->mean, std::exp2(48.0 / 10));  // the empty text has a word
  EXPECT_DOUBLE_EQ(results.find_summary("text", "base", "byte_perplexity")->mean, std::exp2(48.0 / 20));
  const auto* bits = results.find_summary("text", "base", "bits_per_byte");
  EXPECT_DOUBLE_EQ(bits->mean, 2.4);
  EXPECT_EQ(bits->count, 4);
  // Deviations 8 - 2.4 * 4, 30 - 2.4 * 6, 0, 10 - 2.4 * 10.
  EXPECT_DOUBLE_EQ(bits->standard_error, std::sqrt(4.0 / 3 * (1.6 * 1.6 + 15.6 * 15.6 + 14.0 * 14.0)) / 20);
  EXPECT_DOUBLE_EQ(results.find_summary("text", "base", "byte_perplexity")->standard_error,
                   bits->standard_error * kLn2 * std::exp2(48.0 / 20));
}

TEST(TextScores, AreOfEachTask) {
  auto results = evaluated_texts();
  summarize(results);
  ASSERT_EQ(results.per_task.size(), 12u);
  EXPECT_EQ(results.per_task[0].metric, "bits_per_byte");
  EXPECT_DOUBLE_EQ(results.per_task[0].mean, 3.8);
  EXPECT_EQ(results.per_task[0].count, 3);
  EXPECT_DOUBLE_EQ(results.per_task[1].mean, 2.8);  // of "m"
  EXPECT_DOUBLE_EQ(results.per_task[6].mean, 1);
  EXPECT_TRUE(std::isnan(results.per_task[6].standard_error));
}

TEST(TextScores, CompareByBitsPerByte) {
  auto results = evaluated_texts();
  summarize(results);
  // m - base in bits per byte: -1 on 4 bytes, -1 on 6, 1 on 10; the empty text says nothing.
  const auto& difference = *results.find_summary("text", "m", "bits_per_byte")->difference;
  EXPECT_DOUBLE_EQ(difference.mean, 0);
  EXPECT_EQ(difference.count, 3);
  const double student = student_t_quantile(0.975, 2);
  EXPECT_NEAR(difference.high, student * std::sqrt(1.5 * (16 + 36 + 100)) / 20, 1e-12);
  const auto& by_task = *results.find_summary("text", "m", "bits_per_byte")->difference_by_task;
  EXPECT_NEAR(by_task.high, student_t_quantile(0.975, 1) * std::sqrt(2.0 * (100 + 100)) / 20, 1e-9);
  EXPECT_FALSE(results.find_summary("text", "m", "word_perplexity")->difference);
  ASSERT_EQ(results.comparisons.size(), 1u);
  const auto& pair = results.comparisons[0];
  EXPECT_EQ(pair.metric + " " + pair.method + " " + pair.other, "bits_per_byte base m");
  EXPECT_DOUBLE_EQ(pair.mean, 0);
  EXPECT_EQ(pair.count, 3);
  EXPECT_EQ(pair.by_row->test, "weighted t");
  EXPECT_EQ(pair.by_row->p, 1);
  EXPECT_DOUBLE_EQ(pair.by_row->low, -1);  // drawn thrice, the last text alone
  EXPECT_DOUBLE_EQ(pair.by_row->high, 1);
}

TEST(TextScores, DrawTextsWithAllOfTheirBytes) {
  Results results{.methods = {{"base"}, {"m"}}, .metrics = {{.name = "bits_per_byte", .better = Better::kLower}}};
  results.samples = {text("base", "a", "1", -20 * kLn2, 1, 10), text("base", "b", "2", -90 * kLn2, 1, 30),
                     text("m", "a", "1", -10 * kLn2, 1, 10), text("m", "b", "2", -30 * kLn2, 1, 30)};
  const auto found = compare_methods(results);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_DOUBLE_EQ(found[0].mean, 70.0 / 40);
  // Draws of two texts: 1 twice (1), both (1.75), 2 twice (2).
  EXPECT_DOUBLE_EQ(found[0].by_row->low, 1);
  EXPECT_DOUBLE_EQ(found[0].by_row->high, 2);
  EXPECT_DOUBLE_EQ(found[0].by_task->low, 1);
  EXPECT_DOUBLE_EQ(found[0].by_task->high, 2);
  const double error = std::sqrt(2 * (7.5 * 7.5 + 7.5 * 7.5)) / 40;
  EXPECT_DOUBLE_EQ(found[0].by_row->p, student_t_p_value(1.75 / error, 1));
  EXPECT_DOUBLE_EQ(found[0].by_task->p, student_t_p_value(1.75 / error, 1));
}

TEST(TextScores, RefuseWhatIsNotFinite) {
  const auto bad = text("base", "a", "x", NAN, 1, 1);
  const Sample* texts[] = {&bad};
  EXPECT_ERROR(estimate_texts(*find_text_metric("bits_per_byte"), texts), ErrorKind::kUsage, "text 'x' is nan");
  EXPECT_ERROR(estimate_texts(*find_text_metric("bits_per_byte"), {}), ErrorKind::kUsage, "of no texts");
}

TEST(TextScores, StandInADocument) {
  auto results = evaluated_texts();
  summarize(results);
  const auto document = to_json(results);
  const auto& sample = document.at("samples")[1];
  EXPECT_EQ(sample.at("num_words"), 3);
  EXPECT_EQ(sample.at("num_bytes"), 6);
  EXPECT_DOUBLE_EQ(sample.at("log_likelihood"), -30 * kLn2);
  const auto read = from_json(document, "r.json");
  EXPECT_EQ(read.samples[1].log_likelihood, results.samples[1].log_likelihood);
  EXPECT_EQ(read.samples[1].num_words, 3);
  EXPECT_EQ(read.samples[1].num_bytes, 6);
  EXPECT_EQ(to_json(read), document);
  EXPECT_FALSE(to_json(Results{.samples = {{.task = "t"}}}).at("samples")[0].contains("log_likelihood"));
}

TEST(TextScores, StandAsTheHarnessWritesThem) {
  auto results = evaluated_texts();
  summarize(results);
  const auto lines = lm_eval_samples(results, "base", "a", {{"2", {.arguments = {{"Text", nullptr}}, .row = {{"text", "Text"}}}}});
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].at("arguments").dump(), R"({"gen_args_0":{"arg_0":"Text"}})");
  EXPECT_EQ(lines[1].at("filtered_resps"), nlohmann::json::array({-30 * kLn2}));
  EXPECT_EQ(lines[1].at("word_perplexity"), nlohmann::json::array({-30 * kLn2, 3}));
  EXPECT_EQ(lines[1].at("bits_per_byte"), nlohmann::json::array({-30 * kLn2, 6}));
  EXPECT_DOUBLE_EQ(lm_eval_results(results, "base").at("results").at("a").at("bits_per_byte,none"), 3.8);
}

}  // namespace
}  // namespace quiver::results
