#include "quiver/tasks/task_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/tasks/test_support.h"

namespace quiver::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kQuestions =
    R"({"id":"a","context":"Q: sky?\nA:","choices":["blue","red"],"label":0,"split":"test"}
{"id":"b","context":"Q: grass?\nA:","choices":["pink","green"],"label":1,"split":"train"}
{"id":"c","context":"Ann saw ","choices":["Eve","Bob"],"label":1,"mode":"partial","continuation":"run.","split":"test"}
)";

TEST(TaskFile, AsksQuestionsOfTheTestSplit) {
  const TaskFolder folder;
  const auto task = load_task_file(folder.write("own.v2.jsonl", kQuestions), {});
  EXPECT_EQ(task.name, "own.v2");
  EXPECT_EQ(task.group, "own");
  EXPECT_EQ(task.section, "choice");
  EXPECT_EQ(task.kind, Kind::kChoice);
  EXPECT_THAT(task.metrics, ElementsAre("acc", "acc_norm", "acc_bytes"));
  EXPECT_THAT(ids_of(task.questions), ElementsAre("a", "c"));
  EXPECT_THAT(task.questions[0].contexts, ElementsAre("Q: sky?\nA:", "Q: sky?\nA:"));
  EXPECT_THAT(task.questions[0].continuations, ElementsAre(" blue", " red"));
  EXPECT_THAT(task.questions[1].contexts, ElementsAre("Ann saw Eve", "Ann saw Bob"));
  EXPECT_EQ(task.questions[1].label, 1);
  EXPECT_EQ(task.config.at("task_file_sha256").get<std::string>().size(), 64u);
  EXPECT_THAT(task.warnings, IsEmpty());
}

TEST(TaskFile, TakesQuestionsOfTheTrainSplitAsExamples) {
  const TaskFolder folder;
  const auto task = load_task_file(folder.write("own.jsonl", kQuestions), {.num_fewshot = 1});
  EXPECT_EQ(task.num_fewshot, 1);
  EXPECT_THAT(ids_of(task.questions), ElementsAre("a", "c"));
  EXPECT_EQ(task.questions[0].contexts[1], "Q: grass?\nA: green\n\nQ: sky?\nA:");
  EXPECT_EQ(task.questions[1].contexts[1], "Q: grass?\nA: green\n\nAnn saw Bob");
  EXPECT_ERROR(load_task_file(folder / "own.jsonl", {.num_fewshot = 2}), ErrorKind::kUsage,
               "task 'own' has 1 training rows; 2 few-shot examples");
}

TEST(TaskFile, AsksAnswersOfTheFirstSplitThatThereIs) {
  const TaskFolder folder;
  const std::string valid = R"({"id":"v","instruction":"Say","input":"it","target":"yes","targets":["yes","y"],"split":"validation"})";
  const std::string train = R"({"id":"t","prompt":"More?","completion":" no","split":"train"})";
  const std::string test = R"({"id":"e","messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"}],"split":"test"})";
  EXPECT_THAT(ids_of(load_task_file(folder.write("all.jsonl", valid + "\n" + train + "\n" + test), {}).examples), ElementsAre("e"));
  EXPECT_THAT(ids_of(load_task_file(folder.write("train.jsonl", train), {}).examples), ElementsAre("t"));
  const auto task = load_task_file(folder.write("two.jsonl", valid + "\n" + train), {.num_fewshot = 1});
  EXPECT_EQ(task.kind, Kind::kAnswer);
  EXPECT_EQ(task.section, "answer");
  EXPECT_THAT(task.metrics, ElementsAre("nll", "rouge_l", "exact_match"));
  EXPECT_TRUE(task.scores_target);
  ASSERT_EQ(task.examples.size(), 1u);
  EXPECT_EQ(task.examples[0].source, "More? no\n\nSay\n\nit");
  EXPECT_THAT(task.examples[0].targets, ElementsAre("yes", "y"));
  EXPECT_ERROR(load_task_file(folder.write("talk.jsonl", test + "\n" + train), {.num_fewshot = 1}), ErrorKind::kUsage,
               "few-shot examples cannot stand before a conversation");
}

TEST(TaskFile, DoesNotAskTheRowsThatAreItsExamples) {
  const TaskFolder folder;
  std::string rows;
  for (int i = 0; i < 6; ++i) {
    const auto n = std::to_string(i);
    rows += R"({"id":")" + n + R"(","source":"S)" + n + R"(","target":"T)" + n + "\"}\n";
  }
  const auto path = folder.write("own.jsonl", rows);
  const auto task = load_task_file(path, {.num_fewshot = 2});
  ASSERT_EQ(task.examples.size(), 4u);
  for (const auto& example : task.examples) EXPECT_THAT(example.source, Not(HasSubstr("S" + example.id + " T")));
  const auto before = task.examples[0].source.substr(0, 14);
  EXPECT_TRUE(task.examples[3].source.starts_with(before));
  EXPECT_ERROR(load_task_file(path, {.num_fewshot = 6}), ErrorKind::kUsage,
               "has 5 rows beside one that is asked; 6 few-shot examples are wanted");
  const auto some = load_task_file(path, {.limit = 3}), more = load_task_file(path, {.limit = 5});
  EXPECT_EQ(some.examples.size(), 3u);
  const auto few = ids_of(some.examples), many = ids_of(more.examples);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
}

TEST(TaskFile, ReadsCompressedRowsBesideOthersOfTheSameName) {
  const TaskFolder folder;
  std::filesystem::copy_file("data/heldout_mc/piqa.jsonl.zst", folder / "piqa.jsonl.zst");
  folder.write("piqa.jsonl", kQuestions);
  const auto task = load_task_file(folder / "piqa.jsonl.zst", {.limit = 2});
  EXPECT_EQ(task.name, "piqa");
  EXPECT_EQ(task.num_rows(), 2u);
  EXPECT_EQ(task.questions[0].where.find("piqa.jsonl.zst:") == std::string::npos, false);
}

TEST(TaskFile, RefusesWrongRowsByLineAndField) {
  const TaskFolder folder;
  const auto refuse = [&](const std::string& rows, const std::string& part) {
    EXPECT_ERROR(load_task_file(folder.write("own.jsonl", rows), {}), ErrorKind::kBadFormat, part);
  };
  const std::string question = R"({"context":"Q","choices":["a","b"],"label":1})", answer = R"({"source":"S","target":"T"})";
  refuse("", "holds no rows");
  refuse("[1]", "own.jsonl:1: a row is array; expected an object");
  refuse(question + "\n" + answer, "own.jsonl:2: the row has 'source' of a row with an answer; ");
  refuse(answer + "\n" + question, "own.jsonl:2: the row has 'choices' of a row with choices; ");
  refuse(R"({"context":"Q","choices":["a"],"label":0,"target":"a"})", "own.jsonl:1: the row has 'target'");
  refuse(question + "\n" + R"({"context":"Q","choices":["a","b"],"label":2})",
         "own.jsonl:2 (set 'own'): label 2 is not one of the 2 choices");
  refuse(question + "\n" + R"({"context":"Q","choices":["a",""],"label":0})", "own.jsonl:2 (set 'own'): choice 1 of 2 is empty");
  refuse(R"({"source":"S","targets":[]})", "own.jsonl:1 (task 'own'): neither 'target'");
  refuse(R"({"id":"x","source":"S","target":"T"})"
         "\n"
         R"({"id":"x","source":"S","target":"T"})",
         "own.jsonl:2: the id 'x' stands at");
  refuse(R"({"source":"S","target":"T","split":"dev"})", "own.jsonl:1: split 'dev' is not one of train, valid, test");
  refuse("{\"source\":", "own.jsonl:1");
}

TEST(TaskFile, WarnsOfAChoiceThatBeginsAnother) {
  const TaskFolder folder;
  const auto task = load_task_file(folder.write("own.jsonl", R"({"context":"Q","choices":["yes","no","yes, but"],"label":0}
{"context":"Q","choices":["a","b"],"label":0}
{"context":"Q","choices":["b","b"],"label":0}
)"),
                                   {});
  ASSERT_EQ(task.warnings.size(), 1u);
  EXPECT_THAT(task.warnings[0], HasSubstr("2 of 3 rows have a choice that another one begins with, such as 'yes' and 'yes, but' at "));
  EXPECT_THAT(task.warnings[0], HasSubstr("own.jsonl:1 (set 'own')"));
}

TEST(TaskFile, NamesTheNearestFile) {
  const TaskFolder folder;
  folder.write("mine.jsonl", kQuestions);
  EXPECT_ERROR(load_task_file(folder / "mien.jsonl", {}), ErrorKind::kNotFound, "mien.jsonl' (did you mean 'mine.jsonl'?)");
  EXPECT_ERROR(load_task_file(folder / "mine.csv", {}), ErrorKind::kUsage, "is no task file: its name ends in .jsonl");
  EXPECT_THAT(task_file_names(folder / "mine.jsonl"), ElementsAre("mine"));
}

TEST(TaskFile, ReadsRowsOfTexts) {
  const TaskFolder folder;
  const auto path = folder.write("texts.jsonl", R"({"id":"a","text":"One\ntwo ","split":"test","title":"not read"}
{"text":"","split":"test"}
{"id":"t","text":"not asked"}
)");
  const auto task = load_task_file(path, {});
  EXPECT_EQ(task.kind, Kind::kText);
  EXPECT_EQ(task.section, "text");
  EXPECT_TRUE(task.is_bare);
  EXPECT_TRUE(task.scores_target);
  EXPECT_THAT(task.metrics, ElementsAre("word_perplexity", "byte_perplexity", "bits_per_byte"));
  EXPECT_THAT(ids_of(task.examples), ElementsAre("a", path.string() + ":2"));
  EXPECT_THAT(task.examples[0].targets, ElementsAre("One\ntwo "));
  EXPECT_THAT(task.examples[1].targets, ElementsAre(""));
  EXPECT_EQ(task.num_available, 2);
  EXPECT_EQ(task.config.at("output_type"), "loglikelihood_rolling");
  EXPECT_EQ(load_task_file(path, {.limit = 1}).num_rows(), 1u);
  EXPECT_ERROR(load_task_file(path, {.num_fewshot = 1}), ErrorKind::kUsage, "task 'texts' has 0 solved examples, being texts; 1 few-shot");
}

TEST(TaskFile, RefusesRowsThatAreNoTexts) {
  const TaskFolder folder;
  const auto load = [&](const char* rows) { return load_task_file(folder.write("t.jsonl", rows), {}); };
  EXPECT_ERROR(load("{\"text\":\"a\"}\n{\"source\":\"s\",\"target\":\"t\"}"), ErrorKind::kBadFormat,
               "t.jsonl:2: the row has 'source' of a row with an answer");
  EXPECT_ERROR(load("{\"text\":\"a\"}\n{\"choices\":[\"s\"]}"), ErrorKind::kBadFormat, "has rows with a text");
  EXPECT_ERROR(load("{\"text\":3}"), ErrorKind::kBadFormat, "t.jsonl:1 (task 't')");
  EXPECT_ERROR(load("{\"text\":\"a\",\"id\":\"x\"}\n{\"text\":\"b\",\"id\":\"x\"}"), ErrorKind::kBadFormat, "the id 'x' stands twice");
  EXPECT_EQ(load("{\"text\":\"a\",\"source\":\"s\",\"target\":\"t\"}").kind, Kind::kAnswer);
}

TEST(TaskFile, TakesAFileForOneText) {
  const TaskFolder folder;
  const auto path = folder.write("novel.txt", " A\r\nB\n\n");
  EXPECT_TRUE(is_task_file("novel.txt"));
  EXPECT_THAT(task_file_names(path), ElementsAre("novel"));
  const auto task = load_task_file(path, {.limit = 5});
  EXPECT_EQ(task.name, "novel");
  EXPECT_EQ(task.group, "own");
  EXPECT_EQ(task.section, "text");
  EXPECT_THAT(ids_of(task.examples), ElementsAre("novel.txt"));
  EXPECT_THAT(task.examples[0].targets, ElementsAre(" A\r\nB\n\n"));
  EXPECT_EQ(task.examples[0].where, path.string());
  EXPECT_EQ(task.num_available, 1);
  EXPECT_ERROR(load_task_file(folder.write("bad.txt", "a\xFF"), {}), ErrorKind::kBadFormat, "bad.txt' is not UTF-8");
  EXPECT_ERROR(load_task_file(path, {.num_fewshot = 2}), ErrorKind::kUsage, "2 few-shot examples are wanted");
}

}  // namespace
}  // namespace quiver::tasks
