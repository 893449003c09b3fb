// Task files against what lm-evaluation-harness asks by them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/io/json.h"
#include "quiver/tasks/task_file.h"

namespace quiver::tasks {
namespace {

using nlohmann::json;

const std::string kFolder = "tests/golden/lm_eval_tasks/";

void expect_same_question(const data::Question& question, const json& row) {
  const auto& requests = row.at("requests");
  ASSERT_EQ(question.contexts.size(), requests.size());
  ASSERT_EQ(question.continuations.size(), requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(question.contexts[i], requests[i][0]);
    EXPECT_EQ(question.continuations[i], requests[i][1]);
  }
  EXPECT_EQ(question.choices, row.at("choices").get<std::vector<std::string>>());
  EXPECT_EQ(question.label, row.at("label"));
}

void expect_same_answer(const EvalTask& task, const data::Example& example, const json& row) {
  const auto& request = row.at("requests").at(0);
  EXPECT_EQ(example.source, request[0]);
  EXPECT_EQ(example.targets, row.at("references").get<std::vector<std::string>>());
  const auto& settings = request[1];
  const auto& until = settings.at("until");
  EXPECT_EQ(task.answers.until, until.is_string() ? std::vector{until.get<std::string>()} : until.get<std::vector<std::string>>());
  EXPECT_EQ(task.answers.max_new_tokens, settings.value("max_gen_toks", 256));
  EXPECT_EQ(task.answers.temperature, settings.value("temperature", 0.0));
  EXPECT_EQ(task.answers.top_p.value_or(-1), settings.value("top_p", -1.0));
}

void expect_same(const json& expected) {
  const auto name = expected.at("task").get<std::string>();
  SCOPED_TRACE(name);
  const auto task = load_task_file(kFolder + name + ".yaml", {});
  EXPECT_EQ(task.name, name);
  EXPECT_EQ(task.version, expected.at("version") == "Yaml" ? "1" : expected.at("version"));
  EXPECT_EQ(task.metrics, expected.at("metrics").get<std::vector<std::string>>());
  ASSERT_EQ(task.kind, expected.at("output_type") == "multiple_choice" ? Kind::kChoice : Kind::kAnswer);
  const auto& rows = expected.at("rows");
  ASSERT_EQ(task.num_rows(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(i);
    if (task.kind == Kind::kChoice) {
      expect_same_question(task.questions[i], rows[i]);
    } else {
      expect_same_answer(task, task.examples[i], rows[i]);
    }
  }
}

TEST(LmEvalGolden, AsksWhatLmEvaluationHarnessAsks) {
  const auto cases = io::read_json_file(kFolder + "cases.json");
  EXPECT_EQ(cases.size(), 12u);
  for (const auto& row : cases) expect_same(row);
}

TEST(LmEvalGolden, ReadsTheOptionsOfExactMatch) {
  const auto task = load_task_file(kFolder + "gsm_like.yaml", {});
  EXPECT_TRUE(task.exact_match.ignore_case);
  EXPECT_FALSE(task.exact_match.ignore_punctuation);
  EXPECT_FALSE(task.exact_match.ignore_numbers);
  EXPECT_EQ(task.exact_match.regexes_to_ignore, (std::vector<std::string>{",", "\\$", "(?s).*#### ", "\\.$"}));
  EXPECT_FALSE(task.scores_target);
  EXPECT_EQ(task.num_fewshot, 2);
  EXPECT_TRUE(load_task_file(kFolder + "trivia_field.yaml", {}).exact_match.ignore_numbers);
}

}  // namespace
}  // namespace quiver::tasks
