#include "quiver/results/lm_eval_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "quiver/base/hash.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

using nlohmann::json;
using ::testing::IsEmpty;

/// Three tasks and two methods: choices, answers, programs.
Results some_results() {
  Results results{.created = "2026-03-01T12:34:56Z",
                  .base = {.name = "a/tiny:one", .fingerprint = "f0", .content = "c0", .parameters = 1234, .dtype = "float32"}};
  results.settings = {{"evaluation", {{"seed", 42}}}};
  results.tasks = {{.name = "arc",
                    .kind = "choice",
                    .num_samples = 2,
                    .version = "1.0",
                    .num_available = 30,
                    .num_fewshot = 5,
                    .num_cut = 1,
                    .fingerprint = "ab",
                    .config = {{"output_type", "multiple_choice"}, {"task", "another"}}},
                   {.name = "bbh/nav", .kind = "answer", .num_samples = 1, .version = "2", .num_available = 1, .fingerprint = "cd"},
                   {.name = "code", .kind = "program", .num_samples = 1, .version = "1", .num_available = 164, .fingerprint = "ef"}};
  results.methods = {{.name = "base", .label = "Base", .description = "the model"},
                     {.name = "mean(x=1)", .label = "Mean", .description = ""}};
  results.metrics = {{.name = "nll", .label = "", .unit = "", .better = Better::kLower},
                     {.name = "exact_match", .label = "", .unit = "", .better = Better::kHigher},
                     {.name = "acc", .label = "", .unit = "", .better = Better::kHigher},
                     {.name = "odd", .label = "", .unit = ""}};
  results.per_task = {{.task = "arc", .method = "base", .metric = "acc", .mean = 0.5, .standard_error = 0.25, .count = 2},
                      {.task = "arc", .method = "mean(x=1)", .metric = "acc", .mean = 1, .standard_error = 0, .count = 2},
                      {.task = "bbh/nav", .method = "base", .metric = "nll", .mean = 1.5, .standard_error = NAN, .count = 1},
                      {.task = "bbh/nav", .method = "base", .metric = "exact_match", .mean = 0, .standard_error = INFINITY, .count = 1},
                      {.task = "bbh/nav", .method = "base", .metric = "odd", .mean = NAN, .standard_error = NAN, .count = 1}};
  results.samples = {
      {.section = "choice",
       .method = "base",
       .task = "arc",
       .id = "q1",
       .metrics = {{"acc", 1.0}},
       .log_probs = {-0.5, -12},
       .label = 0,
       .is_greedy = {1, 0}},
      {.section = "choice", .method = "mean(x=1)", .task = "arc", .id = "q1", .metrics = {{"acc", 0.0}}, .log_probs = {-3, -2}, .label = 0},
      {.section = "choice", .method = "base", .task = "arc", .id = "q2", .metrics = {{"acc", 0.0}}, .log_probs = {-1e-7, NAN}, .label = 1},
      {.section = "answer",
       .method = "base",
       .task = "bbh/nav",
       .id = "r1",
       .metrics = {{"nll", 1.5}, {"exact_match", NAN}},
       .prediction = "No, \"grüße\"",
       .targets = {"Yes", "yes"}},
      {.section = "program", .method = "base", .task = "code", .id = "p1", .prediction = "", .targets = {"x"}, .outcome = "signal 9"}};
  return results;
}

TEST(LmEvalForm, ResultsOfAMethodAreThese) {
  const auto expected = io::parse_json(R"({
    "results": {
      "arc": {"alias": "arc", "name": "arc", "acc,none": 0.5, "acc_stderr,none": 0.25, "sample_len": 2},
      "bbh/nav": {"alias": "bbh/nav", "name": "bbh/nav", "nll,none": 1.5, "nll_stderr,none": "N/A", "exact_match,none": 0.0,
                  "exact_match_stderr,none": "N/A", "odd,none": "N/A", "odd_stderr,none": "N/A", "sample_len": 1}},
    "group_subtasks": {},
    "configs": {"arc": {"output_type": "multiple_choice", "task": "arc", "num_fewshot": 5}, "bbh/nav": {"task": "bbh/nav", "num_fewshot": 0}},
    "versions": {"arc": "1.0", "bbh/nav": "2"},
    "n-shot": {"arc": 5, "bbh/nav": 0},
    "higher_is_better": {"arc": {"acc": true}, "bbh/nav": {"nll": false, "exact_match": true}},
    "n-samples": {"arc": {"original": 30, "effective": 2}, "bbh/nav": {"original": 1, "effective": 1}},
    "config": {"model": "quiver", "model_args": "pretrained=a/tiny:one,method=base", "model_num_parameters": 1234, "model_dtype": "float32",
               "model_sha": "c0"},
    "date": 1772368496.0,
    "model_name": "a/tiny:one",
    "model_name_sanitized": "a__tiny__one",
    "model_source": "quiver",
    "quiver": {"method": {"name": "base", "label": "Base", "description": "the model"}, "base": {"fingerprint": "f0", "content": "c0"},
               "data": {"arc": "ab", "bbh/nav": "cd"}, "rows cut to the context": {"arc": 1}, "settings": {"evaluation": {"seed": 42}}}})",
                                       "test");
  EXPECT_EQ(lm_eval_results(some_results(), "base"), expected) << json::diff(expected, lm_eval_results(some_results(), "base"));
}

TEST(LmEvalForm, EachMethodHasItsOwnScoresAndTasks) {
  const auto document = lm_eval_results(some_results(), "mean(x=1)");
  EXPECT_EQ(document.at("results"),
            json::parse(R"({"arc": {"alias": "arc", "name": "arc", "acc,none": 1.0, "acc_stderr,none": 0.0, "sample_len": 2}})"));
  EXPECT_EQ(document.at("n-shot"), json::parse(R"({"arc": 5})"));
  EXPECT_EQ(document.at("config").at("model_args"), "pretrained=a/tiny:one,method=mean(x=1)");
  EXPECT_ERROR(lm_eval_results(some_results(), "none"), ErrorKind::kInternal, "none");
}

TEST(LmEvalForm, ADateThatIsNoTimeIsNull) {
  auto results = some_results();
  for (const char* text : {"", "yesterday", "2026-03-01", "2026-03-01T12:34:56Z and more"}) {
    results.created = text;
    EXPECT_EQ(lm_eval_results(results, "base").at("date"), json()) << text;
  }
}

TEST(LmEvalForm, LinesOfChoicesAreThese) {
  const std::map<std::string, SampleTexts> texts = {
      {"q1", {.arguments = {{"Question", " a"}, {"Question", " b"}}, .row = {{"choices", {"a", "b"}}, {"label", 0}}}}};
  const auto lines = lm_eval_samples(some_results(), "base", "arc", texts);
  ASSERT_EQ(lines.size(), 2u);
  auto expected = json::parse(R"({
    "doc_id": 0, "id": "q1", "doc": {"choices": ["a", "b"], "label": 0}, "target": "0",
    "arguments": {"gen_args_0": {"arg_0": "Question", "arg_1": " a"}, "gen_args_1": {"arg_0": "Question", "arg_1": " b"}},
    "resps": [[["-0.5", "True"]], [["-12.0", "False"]]], "filtered_resps": [["-0.5", "True"], ["-12.0", "False"]],
    "filter": "none", "metrics": ["acc"], "acc": 1.0})");
  expected["doc_hash"] = sha256_hex(R"({"choices":["a","b"],"label":0})");
  expected["prompt_hash"] = sha256_hex("Question");
  expected["target_hash"] = sha256_hex("0");
  EXPECT_EQ(lines[0], expected) << json::diff(expected, lines[0]);
  auto without_texts = json::parse(R"({
    "doc_id": 1, "id": "q2", "doc": {}, "target": "1", "arguments": {}, "resps": [[["-1e-07", "False"]], [["N/A", "False"]]],
    "filtered_resps": [["-1e-07", "False"], ["N/A", "False"]], "filter": "none", "metrics": ["acc"], "acc": 0.0})");
  without_texts["doc_hash"] = sha256_hex("{}");
  without_texts["target_hash"] = sha256_hex("1");
  EXPECT_EQ(lines[1], without_texts) << json::diff(without_texts, lines[1]);
}

TEST(LmEvalForm, LinesOfAnswersAndProgramsAreThese) {
  const std::map<std::string, SampleTexts> texts = {
      {"r1", {.arguments = {{"Say", {{"until", {"\n"}}}}}, .row = {{"targets", {"Yes", "yes"}}}}}};
  const auto answer = lm_eval_samples(some_results(), "base", "bbh/nav", texts).at(0);
  auto expected = json::parse(R"({
    "doc_id": 0, "id": "r1", "doc": {"targets": ["Yes", "yes"]}, "target": "Yes",
    "arguments": {"gen_args_0": {"arg_0": "Say", "arg_1": {"until": ["\n"]}}}, "resps": [["No, \"grüße\""]],
    "filtered_resps": ["No, \"grüße\""], "filter": "none", "metrics": ["nll", "exact_match"], "nll": 1.5, "exact_match": "N/A"})");
  expected["doc_hash"] = sha256_hex(R"({"targets":["Yes","yes"]})");
  expected["prompt_hash"] = sha256_hex("Say");
  expected["target_hash"] = sha256_hex("Yes");
  EXPECT_EQ(answer, expected) << json::diff(expected, answer);
  const auto program = lm_eval_samples(some_results(), "base", "code", {}).at(0);
  EXPECT_EQ(program.at("outcome"), "signal 9");
  EXPECT_EQ(program.at("filtered_resps"), json::parse(R"([""])"));
  EXPECT_EQ(program.at("metrics"), json::array());
  EXPECT_FALSE(answer.contains("outcome"));
  EXPECT_THAT(lm_eval_samples(some_results(), "mean(x=1)", "code", {}), IsEmpty());
}

TEST(LmEvalForm, NamesOfFilesAreTheHarness) {
  EXPECT_EQ(lm_eval_results_file(some_results()), "results_2026-03-01T12-34-56Z.json");
  auto results = some_results();
  EXPECT_EQ(lm_eval_samples_file(results, "bbh/nav"), "samples_bbh_nav_2026-03-01T12-34-56Z.jsonl");
  results.tasks.push_back({.name = "bbh_nav"});
  EXPECT_EQ(lm_eval_samples_file(results, "bbh/nav"), "samples_bbh_nav_2026-03-01T12-34-56Z.jsonl");
  EXPECT_EQ(lm_eval_samples_file(results, "bbh_nav"), "samples_bbh_nav-2_2026-03-01T12-34-56Z.jsonl");
}

/// As scripts/golden/make_lm_eval_form.py writes them: the members of a value, down to a depth; of others the type.
json shape(const json& value, int depth = 3) {
  if (value.is_object() && depth > 0) {
    auto members = json::object();
    for (const auto& [key, member] : value.items()) members[key] = shape(member, depth - 1);
    return members;
  }
  if (value.is_array() && !value.empty()) return json::array({shape(value[0], depth)});
  if (value.is_number()) return "number";
  return value.is_string() ? "str" : value.is_boolean() ? "bool" : value.is_null() ? "NoneType" : value.is_array() ? "list" : "dict";
}

/// Members that the harness writes and `ours` has not, or has with another type. What `unknown` names is not asked.
std::vector<std::string> missing(const json& theirs, const json& ours, const std::set<std::string>& unknown, const std::string& path = "") {
  std::vector<std::string> faults;
  for (const auto& [key, value] : theirs.items()) {
    const auto place = path + "/" + key;
    if (unknown.contains(place)) continue;
    if (!ours.contains(key)) {
      faults.push_back(place + " is missing");
    } else if (value.is_object() && ours[key].is_object()) {
      for (auto& fault : missing(value, ours[key], unknown, place)) faults.push_back(std::move(fault));
    } else if (value != ours[key]) {
      faults.push_back(place + " is " + value.dump() + " there and " + ours[key].dump() + " here");
    }
  }
  return faults;
}

TEST(LmEvalForm, HasTheMembersThatTheHarnessWrites) {
  const auto golden = io::read_json_file("tests/golden/lm_eval_form/keys.json");
  auto results = some_results();  // the same task under the names of the golden ones
  results.tasks.push_back(results.tasks[0]);
  results.tasks.back().name = "arc_like";
  results.per_task = {{.task = "arc_like", .method = "base", .metric = "acc", .mean = 0.5, .standard_error = 0.25, .count = 2},
                      {.task = "arc_like", .method = "base", .metric = "acc_norm", .mean = 0.5, .standard_error = 0.25, .count = 2}};
  results.metrics.push_back({.name = "acc_norm", .label = "", .unit = "", .better = Better::kHigher});
  results.samples[0].metrics.emplace_back("acc_norm", 1.0);
  auto theirs = golden.at("results");
  for (auto& [part, value] : theirs.items()) {
    if (value.is_object()) value.erase("gsm_like"), value.erase("boolq_like");
  }
  // How the harness ran, on which software; and what a task's own file says of prompts, which is in "configs" as the task has it.
  const std::set<std::string> unknown = {"/chat_template",          "/chat_template_sha",    "/config",
                                         "/configs/arc_like",       "/fewshot_as_multiturn", "/git_hash",
                                         "/lm_eval_version",        "/pretty_env_info",      "/system_instruction",
                                         "/system_instruction_sha", "/task_hashes",          "/total_evaluation_time_seconds",
                                         "/transformers_version",   "/upper_git_hash",       "/versions/arc_like"};
  EXPECT_THAT(missing(theirs, shape(lm_eval_results(results, "base")), unknown), IsEmpty());

  const SampleTexts choices{.arguments = {{"Q", " a"}, {"Q", " b"}, {"Q", " c"}, {"Q", " d"}}, .row = {{"id", "1"}}};
  const auto& lines = golden.at("samples");
  EXPECT_THAT(missing(lines.at("arc_like"), shape(lm_eval_samples(results, "base", "arc", {{"q1", choices}}).at(0)),
                      {"/doc/answerKey", "/doc/choices", "/doc/question"}),
              IsEmpty());
  const SampleTexts answer{.arguments = {{"Q", {{"until", {"\n"}}}}}, .row = {{"answer", "1"}, {"question", "Q"}}};
  results.samples[3].metrics = {{"exact_match", 1.0}};
  EXPECT_THAT(missing(lines.at("gsm_like"), shape(lm_eval_samples(results, "base", "bbh/nav", {{"r1", answer}}).at(0)), {}), IsEmpty());
}

}  // namespace
}  // namespace quiver::results
