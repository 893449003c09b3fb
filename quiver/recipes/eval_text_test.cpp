// Perplexities of texts, against lm-evaluation-harness with the same tiny model (tests/golden/lm_eval_text).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "quiver/data/encode.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/recipes/evaluate.h"
#include "quiver/tasks/task_file.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const std::string kFolder = "tests/golden/lm_eval_text/";
/// Of a log-likelihood: the harness sums up float32.
constexpr double kTextTolerance = 2e-6;

class EvalText : public ::testing::Test {
 protected:
  EvalText() : folder_(fs::path(::testing::TempDir()) / ("quiver-eval-text-" + std::to_string(::getpid()))) {
    io::remove_tree(folder_);
    fs::create_directories(folder_);
  }
  ~EvalText() override { io::remove_tree(folder_); }

  results::Results run(std::vector<tasks::EvalTask> some, const fs::path& work = {}) {
    EvalSetup setup{.tasks = std::move(some), .methods = {parse_eval_method("base")}};
    setup.work = work;
    return evaluate(base_, setup, progress_);
  }
  fs::path write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  static const results::TaskRow& row_of(const results::Results& results, const std::string& task, const std::string& metric) {
    for (const auto& row : results.per_task) {
      if (row.task == task && row.metric == metric) return row;
    }
    fail(ErrorKind::kInternal, "no row {} {}", task, metric);
  }

  fs::path folder_;
  NoProgress progress_;
  methods::BaseModel base_ = methods::load_base("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
};

TEST_F(EvalText, EqualsLmEvaluationHarness) {
  const auto cases = io::read_json_file(kFolder + "cases.json");
  for (const char* name : {"texts", "pages"}) {
    SCOPED_TRACE(name);
    const auto& expected = cases.at(name);
    const auto results = run({tasks::load_task_file(kFolder + name + ".yaml", {})});
    ASSERT_EQ(results.samples.size(), expected.at("rows").size());
    double log_likelihood = 0, bytes = 0, words = 0;
    for (std::size_t i = 0; i < results.samples.size(); ++i) {
      const auto& row = expected.at("rows")[i];
      const auto& sample = results.samples[i];
      SCOPED_TRACE(sample.id);
      EXPECT_EQ(sample.id, row.at("id"));
      const auto value = row.at("log_likelihood").get<double>();
      EXPECT_NEAR(*sample.log_likelihood, value, kTextTolerance * std::abs(value));
      EXPECT_EQ(sample.num_words, row.at("word_perplexity"));
      EXPECT_EQ(sample.num_bytes, row.at("bits_per_byte"));
      EXPECT_EQ(sample.num_tokens.value_or(0), row.at("tokens"));  // no token is left out
      log_likelihood += value;
      bytes += row.at("bits_per_byte").get<double>();
      words += row.at("word_perplexity").get<double>();
    }
    for (const auto& [metric, value] : expected.at("results").items()) {
      SCOPED_TRACE(metric);
      // exp(x) has the relative error that x has absolutely.
      const double length = metric == "word_perplexity" ? words : bytes;
      const double error = metric == "bits_per_byte" ? kTextTolerance : kTextTolerance * std::abs(log_likelihood) / length;
      const auto number = value.get<double>();
      EXPECT_NEAR(row_of(results, name, metric).mean, number, error * number);
      EXPECT_NEAR(results.find_summary("text", "base", metric)->mean, number, error * number);
    }
    EXPECT_EQ(results.per_task.size(), expected.at("results").size());
  }
}

TEST_F(EvalText, ReadsALongTextInWindowsWithoutCuttingIt) {
  const auto cases = io::read_json_file(kFolder + "cases.json");
  const auto text = cases.at("texts").at("rows")[0].at("text").get<std::string>();
  const auto rows = encode_rows(base_, tasks::load_task_file(write("licence.txt", text), {}), {});
  ASSERT_EQ(rows.first_sequence, (std::vector<std::size_t>{0, 4}));  // 938 tokens, 256 and then 256 at a time
  ASSERT_EQ(rows.sequences.size(), 4u);
  const auto tokens = data::encode_text(base_.tokenizer, text);
  std::vector<std::int32_t> read;
  for (const auto& sequence : rows.sequences) {
    EXPECT_LE(sequence.tokens.size(), 257u);
    read.insert(read.end(), sequence.tokens.end() - sequence.num_targets, sequence.tokens.end());
  }
  EXPECT_EQ(read, tokens);
  EXPECT_EQ(rows.sequences[0].tokens[0], *base_.tokenizer.bos_id());
  EXPECT_EQ(rows.num_cut, 0);
  EXPECT_EQ(encode_rows(base_, rows.task, {.max_length = 100}).first_sequence, (std::vector<std::size_t>{0, 10}));
  EXPECT_EQ(encode_rows(base_, rows.task, {.max_length = 100000}).first_sequence, (std::vector<std::size_t>{0, 4}));

  const auto results = run({tasks::load_task_file(folder_ / "licence.txt", {})});
  const auto expected = cases.at("texts").at("rows")[0].at("log_likelihood").get<double>();
  EXPECT_NEAR(*results.samples[0].log_likelihood, expected, kTextTolerance * std::abs(expected));
  EXPECT_EQ(results.samples[0].section, "text");
  EXPECT_EQ(results.tasks[0].num_cut, 0);
}

TEST_F(EvalText, ReadsTextsBareUnderAChatTemplate) {
  const auto task = tasks::load_task_file(write("a.txt", "Hello there."), {});
  const auto bare = encode_rows(base_, task, {});
  base_.format.chat.emplace("{% for m in messages %}<{{ m.content }}>{% endfor %}", "test", base_.tokenizer);
  EXPECT_EQ(encode_rows(base_, task, {}).fingerprint, bare.fingerprint);
}

TEST_F(EvalText, TakesUpWhatIsDoneWithEmptyTexts) {
  const auto path = write("rows.jsonl", "{\"text\":\"\"}\n{\"text\":\"some words\"}\n{\"text\":\"\"}\n");
  const auto task = tasks::load_task_file(path, {});
  const auto first = run({task}, folder_ / "work"), second = run({task}, folder_ / "work");
  ASSERT_EQ(second.samples.size(), 3u);
  EXPECT_EQ(*second.samples[0].log_likelihood, 0);
  EXPECT_EQ(second.samples[0].num_bytes, 0);
  EXPECT_EQ(second.samples[1].log_likelihood, first.samples[1].log_likelihood);
  EXPECT_EQ(second.samples[1].num_words, 2);
  EXPECT_EQ(row_of(second, "rows", "bits_per_byte").mean, row_of(first, "rows", "bits_per_byte").mean);
  EXPECT_DOUBLE_EQ(row_of(first, "rows", "word_perplexity").mean, std::exp(-*first.samples[1].log_likelihood / 4));
  EXPECT_ERROR(run({tasks::load_task_file(write("none.jsonl", "{\"text\":\"\"}\n"), {})}), ErrorKind::kUsage,
               "task 'none': the texts have no tokens");
}

TEST_F(EvalText, NeedsNoAnswers) {
  EvalSetup setup{.tasks = {tasks::load_task_file(write("a.txt", "Hello there."), {})}, .methods = {parse_eval_method("base")}};
  setup.rows.generates = false;
  const auto results = evaluate(base_, setup, progress_);
  EXPECT_THAT(results.summary, ::testing::SizeIs(3));
  EXPECT_EQ(results.summary[2].metric, "bits_per_byte");
  EXPECT_GT(results.summary[2].mean, 0);
}

}  // namespace
}  // namespace quiver::recipes
