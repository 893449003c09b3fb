#include "quiver/tasks/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/tasks/paper_prompts.h"
#include "quiver/tasks/test_support.h"

namespace quiver::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const Group& group(const std::string& name) {
  for (const auto& one : groups()) {
    if (one.name == name) return one;
  }
  fail(ErrorKind::kInternal, "no group '{}'", name);
}

EvalTask load_one(const TaskFolder& pack, const std::string& group_name, const std::string& task, const RowChoice& rows = {}) {
  auto tasks = load_pack_tasks(group(group_name), pack.path(), {{task, rows}});
  EXPECT_THAT(tasks, SizeIs(1));
  return std::move(tasks[0]);
}

TEST(Pack, NamesItsGroupsInOrder) {
  std::vector<std::string> names;
  for (const auto& one : groups()) names.push_back(one.name);
  EXPECT_THAT(names, ElementsAre("upstream", "sni", "mc", "bbh", "humaneval", "mbpp"));
  EXPECT_THAT(task_names(group("mc"), "data"),
              ElementsAre("arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"));
  EXPECT_THAT(task_names(group("sni"), "data"), SizeIs(12));
  EXPECT_THAT(task_names(group("bbh"), "data"), SizeIs(27));
  EXPECT_THAT(task_names(group("humaneval"), "data"), ElementsAre("humaneval"));
  const TaskFolder empty;
  EXPECT_THAT(task_names(group("mc"), empty.path()), IsEmpty());
  EXPECT_THAT(task_names(group("bbh"), empty.path()), IsEmpty());
}

TEST(Pack, PutsSolvedQuestionsBeforeThoseThatAreAsked) {
  const TaskFolder pack;
  pack.write("heldout_mc/two.jsonl", R"({"id":"a","context":"Q1\nA:","choices":["x","y"],"label":1}
{"id":"b","context":"Q2\nA:","choices":["x","y"],"label":0}
)");
  const auto none = load_one(pack, "mc", "two");
  EXPECT_EQ(none.num_fewshot, 0);
  EXPECT_EQ(none.questions[0].contexts[0], "Q1\nA:");
  const auto task = load_one(pack, "mc", "two", {.num_fewshot = 1});
  ASSERT_THAT(task.questions, SizeIs(1));
  const auto expected = task.questions[0].id == "a" ? "Q2\nA: x\n\nQ1\nA:" : "Q1\nA: y\n\nQ2\nA:";
  EXPECT_THAT(task.questions[0].contexts, ElementsAre(expected, expected));
  EXPECT_THAT(task.metrics, ElementsAre("acc", "acc_norm", "acc_bytes"));
  EXPECT_ERROR(load_one(pack, "mc", "two", {.num_fewshot = 2}), ErrorKind::kUsage,
               "task 'two' has 1 rows beside one that is asked; 2 few-shot examples");
}

TEST(Pack, PutsTrainingRowsBeforeTestRows) {
  const TaskFolder pack;
  pack.write("train/t.jsonl", R"({"id":"a","source":"Do A.","target":"1","split":"train"}
{"id":"b","source":"Do B. ","target":"2","split":"test"}
{"id":"c","source":"Do C.","target":"3","split":"valid"}
)");
  const auto task = load_one(pack, "upstream", "t", {.num_fewshot = 1});
  EXPECT_EQ(task.section, "train");
  EXPECT_THAT(ids_of(task.examples), ElementsAre("b"));
  EXPECT_EQ(task.examples[0].source, "Do A. 1\n\nDo B. ");
  EXPECT_THAT(task.metrics, ElementsAre("nll", "rouge_l"));
  EXPECT_ERROR(load_one(pack, "upstream", "t", {.num_fewshot = 2}), ErrorKind::kUsage,
               "task 't' has 1 training rows; 2 few-shot examples are wanted");
  pack.write("train/u.jsonl", R"({"source":"S","target":"T","split":"train"})");
  EXPECT_ERROR(load_one(pack, "upstream", "u"), ErrorKind::kUsage, "task 'u' has no test rows in");
}

TEST(Pack, WritesTheBenchmarksPromptOfBbh) {
  const TaskFolder pack;
  pack.write("heldout_gen/bbh.jsonl", R"({"id":"n1","task":"nav","input":"Left?","target":"Yes"}
{"id":"o1","task":"other","input":"?","target":"!"}
)");
  pack.write(
      "heldout_gen/bbh_fewshot.jsonl",
      R"({"task":"nav","description":"Say yes or no.","demonstrations":[{"input":"Up?","target":"No"},{"input":"Down?","target":"Yes"},{"input":"On?","target":"No"}]})");
  const auto three = load_one(pack, "bbh", "nav");
  EXPECT_EQ(three.name, "bbh/nav");
  EXPECT_EQ(three.num_fewshot, 3);
  ASSERT_THAT(three.examples, SizeIs(1));
  EXPECT_EQ(three.examples[0].source, "Say yes or no.\n\nQ: Up?\nA: No\n\nQ: Down?\nA: Yes\n\nQ: On?\nA: No\n\nQ: Left?\nA:");
  EXPECT_THAT(three.examples[0].targets, ElementsAre("Yes"));
  EXPECT_EQ(load_one(pack, "bbh", "nav", {.num_fewshot = 0}).examples[0].source, "Say yes or no.\n\nQ: Left?\nA:");
  EXPECT_THAT(three.answers.until, ElementsAre("\n\n", "Q:"));
  EXPECT_FALSE(three.scores_target);
  EXPECT_ERROR(load_one(pack, "bbh", "nav", {.num_fewshot = 4}), ErrorKind::kUsage, "task 'bbh/nav' has 3 demonstrations; 4 few-shot");
  EXPECT_ERROR(load_one(pack, "bbh", "other"), ErrorKind::kBadFormat, "has no row of task 'other'");
}

TEST(Pack, WritesTheProgramsOfHumanEval) {
  const TaskFolder pack;
  pack.write(
      "heldout_gen/humaneval.jsonl",
      R"({"id":"HumanEval/0","prompt":"def f():\n","canonical_solution":"    return 1\n","test":"def check(g):\n    assert g() == 1\n","entry_point":"f"})");
  const auto task = load_one(pack, "humaneval", "humaneval");
  EXPECT_EQ(task.kind, Kind::kProgram);
  EXPECT_TRUE(task.is_bare);
  EXPECT_EQ(task.examples[0].source, "def f():\n");
  ASSERT_THAT(task.programs, SizeIs(1));
  EXPECT_EQ(task.programs[0].before + "    return 1\n" + task.programs[0].after,
            "def f():\n    return 1\n\ndef check(g):\n    assert g() == 1\n\ncheck(f)\n");
  EXPECT_ERROR(load_one(pack, "humaneval", "humaneval", {.num_fewshot = 1}), ErrorKind::kUsage, "has 0 solved examples; 1 few-shot");
}

TEST(Pack, PutsTheUsualExamplesBeforeMbpp) {
  const TaskFolder pack;
  std::string rows;
  for (const char* number : {"2", "3", "4"}) {
    const std::string n = number;
    rows += R"({"id":"MBPP/)" + n + R"(","split":"prompt","prompt":"P)" + n + R"(\n","canonical_solution":"S)" + n +
            R"(","setup":"","tests":["t"]})" + "\n";
  }
  rows +=
      R"({"id":"MBPP/11","split":"test","prompt":"P11\n","canonical_solution":"S11","setup":"import re","tests":["assert a","assert b"]})";
  pack.write("heldout_gen/mbpp.jsonl", rows);
  const auto task = load_one(pack, "mbpp", "mbpp");
  EXPECT_THAT(ids_of(task.examples), ElementsAre("MBPP/11"));
  EXPECT_EQ(task.examples[0].source, "P2\nS2\n[DONE]\n\nP3\nS3\n[DONE]\n\nP4\nS4\n[DONE]\n\nP11\n");
  EXPECT_EQ(task.programs[0].before, "");
  EXPECT_EQ(task.programs[0].after, "\nimport re\nassert a\nassert b\n");
  EXPECT_EQ(load_one(pack, "mbpp", "mbpp", {.num_fewshot = 1}).examples[0].source, "P2\nS2\n[DONE]\n\nP11\n");
  EXPECT_EQ(load_one(pack, "mbpp", "mbpp", {.num_fewshot = 0}).examples[0].source, "P11\n");
}

constexpr RowChoice kPaperRows = {.prompts = Prompts::kPaper};

TEST(PaperPrompts, MakesExamplesOfTheFirstRowsOfBbh) {
  const TaskFolder pack;
  std::string rows = "{\"id\":\"x/0\",\"task\":\"x\",\"input\":\"Left?\",\"target\":\"No\"}\n";
  for (const std::string i : {"0", "1", "2", "3", "4", "5", "6"})
    rows += R"({"id":"nav/)" + i + R"(","task":"nav","input":"Turn )" + i + R"(?","target":"T)" + i + "\"}\n";
  pack.write("heldout_gen/bbh.jsonl", rows);
  const auto task = load_one(pack, "bbh", "nav", kPaperRows);
  EXPECT_THAT(ids_of(task.examples), ElementsAre("nav/5", "nav/6"));
  EXPECT_EQ(task.num_fewshot, 5);
  EXPECT_EQ(task.num_available, 2);
  EXPECT_EQ(task.examples[0].source,
            "Solve the following problem: Turn 0?\nAnswer: T0\n\nSolve the following problem: Turn 1?\nAnswer: T1\n\n"
            "Solve the following problem: Turn 2?\nAnswer: T2\n\nSolve the following problem: Turn 3?\nAnswer: T3\n\n"
            "Solve the following problem: Turn 4?\nAnswer: T4\n\nSolve the following problem: Turn 5?\nAnswer:");
  EXPECT_THAT(task.examples[1].targets, ElementsAre("T6"));
  EXPECT_EQ(task.answers.max_new_tokens, 128);
  EXPECT_EQ(task.answers.temperature, 0);
  EXPECT_THAT(task.answers.until, ElementsAre("\n\n"));
  EXPECT_THAT(task.metrics, ElementsAre("exact_match"));
  EXPECT_EQ(task.version, "paper-1");
  EXPECT_EQ(task.config.at("prompts"), "paper");
  EXPECT_EQ(task.config.at("doc_to_text"), "Solve the following problem: {{input}}\nAnswer:");
  EXPECT_ERROR(load_one(pack, "bbh", "x", kPaperRows), ErrorKind::kUsage,
               "task 'bbh/x' has 0 rows beside one that is asked; 5 few-shot examples are wanted");
  EXPECT_THAT(load_one(pack, "bbh", "nav", {.limit = 1, .num_fewshot = 2, .prompts = Prompts::kPaper}).examples, SizeIs(1));
}

TEST(PaperPrompts, SamplesTheProgramsOfHumanEval) {
  const TaskFolder pack;
  pack.write("heldout_gen/humaneval.jsonl", R"row({"id":"HumanEval/0","prompt":"\n\n  \ndef f():\n    ",)row"
                                            R"row("canonical_solution":"    return 1\n","test":"T","entry_point":"f"})row");
  const auto task = load_one(pack, "humaneval", "humaneval", kPaperRows);
  EXPECT_EQ(task.examples[0].source, "def f():\n    ");
  EXPECT_EQ(task.programs[0].before, "def f():\n    ");
  EXPECT_EQ(task.programs[0].after, "\nT\ncheck(f)\n");
  EXPECT_EQ(task.answers.max_new_tokens, 300);
  EXPECT_EQ(task.answers.temperature, 0.05);
  EXPECT_EQ(task.answers.top_p, 0.95);
  EXPECT_THAT(task.answers.until, ElementsAre("\n\n", "\ndef"));
  EXPECT_EQ(task.version, "paper-1");
  const auto usual = load_one(pack, "humaneval", "humaneval");
  EXPECT_EQ(usual.examples[0].source, "\n\n  \ndef f():\n    ");
  EXPECT_EQ(usual.answers.temperature, std::nullopt);
  EXPECT_EQ(usual.version, "1");
}

TEST(PaperPrompts, GivesTheHeadOfTheFunctionOfMbpp) {
  const TaskFolder pack;
  pack.write("heldout_gen/mbpp.jsonl",
             R"row({"id":"MBPP/11","split":"test","text":"Write f.","prompt":"P\n",)row"
             R"row("canonical_solution":"import re\r\nN = 3\r\ndef f(a: int, b={1: 2}):\r\n  return 1",)row"
             R"row("entry_point":"f","setup":"S","tests":["assert f(1)","assert f(2)"]})row"
             "\n"
             R"row({"id":"MBPP/12","split":"test","text":"Write g.","prompt":"P12\n","canonical_solution":"h = 1",)row"
             R"row("entry_point":"g","setup":"","tests":["assert g"]})row");
  const auto task = load_one(pack, "mbpp", "mbpp", kPaperRows);
  EXPECT_EQ(task.num_fewshot, 0);
  const std::string prompt = "import re\nN = 3\ndef f(a: int, b={1: 2}):\n\t\"\"\"\n\tWrite f.\n\tassert f(1)\n\tassert f(2)\n\t\"\"\"\n";
  EXPECT_EQ(task.examples[0].source, prompt);
  EXPECT_EQ(task.programs[0].before, prompt);
  EXPECT_EQ(task.programs[0].after, "\nS\nassert f(1)\nassert f(2)\n");
  EXPECT_EQ(task.examples[1].source, "P12\n");  // no such function: the pack's prompt
  EXPECT_EQ(task.programs[1].before, "");
  EXPECT_THAT(task.answers.until, ElementsAre("\n\n", "\ndef"));
  EXPECT_EQ(task.answers.top_p, 0.95);
  EXPECT_EQ(task.version, "paper-1");
  EXPECT_ERROR(load_one(pack, "mbpp", "mbpp", {.num_fewshot = 1, .prompts = Prompts::kPaper}), ErrorKind::kUsage,
               "has 0 solved examples in the paper's form; 1 few-shot");
}

TEST(PaperPrompts, LeaveOutOtherFunctionsBeforeTheOneOfMbpp) {
  const auto prompt = paper_mbpp_prompt("T", {"t"}, "import math\ndef helper(x):\n  return x\ndef main (x) :\n  return helper(x)", "main");
  EXPECT_EQ(prompt, "import math\ndef main (x) :\n\t\"\"\"\n\tT\n\tt\n\t\"\"\"\n");
  EXPECT_EQ(paper_mbpp_prompt("T", {"t"}, "def mainly(x): pass", "main"), std::nullopt);
  EXPECT_EQ(paper_mbpp_prompt("T", {"t"}, "def main(x", "main"), std::nullopt);
}

TEST(PaperPrompts, HaveAHeadForEveryRowOfThePack) {
  const auto task = std::move(load_pack_tasks(group("mbpp"), "data", {{"mbpp", kPaperRows}})[0]);
  ASSERT_THAT(task.programs, SizeIs(500));
  for (std::size_t i = 0; i < 500; ++i) EXPECT_EQ(task.programs[i].before, task.examples[i].source) << task.examples[i].id;
}

TEST(Pack, SmallerLimitsArePrefixesOfLargerOnes) {
  for (const auto& [name, task] :
       {std::pair{"mc", "piqa"}, {"sni", "task242_tweetqa_classification"}, {"humaneval", "humaneval"}, {"bbh", "navigate"}}) {
    SCOPED_TRACE(name);
    const auto load = [&](std::int64_t limit) {
      const auto tasks = load_pack_tasks(group(name), "data", {{task, {.limit = limit}}});
      return tasks[0].kind == Kind::kChoice ? ids_of(tasks[0].questions) : ids_of(tasks[0].examples);
    };
    const auto few = load(5), more = load(9);
    ASSERT_THAT(few, SizeIs(5));
    ASSERT_THAT(more, SizeIs(9));
    EXPECT_EQ(few, std::vector<std::string>(more.begin(), more.begin() + 5));
  }
}

TEST(Pack, KnowsLabels) {
  std::vector<data::Example> examples;
  for (int i = 0; i < 20; ++i) examples.push_back({.targets = {i % 2 == 0 ? "yes" : "no"}});
  EXPECT_TRUE(has_labels(examples));
  examples[0].targets = {"perhaps"};
  EXPECT_FALSE(has_labels(examples));
  examples.resize(19);
  EXPECT_FALSE(has_labels(examples));
}

}  // namespace
}  // namespace quiver::tasks
