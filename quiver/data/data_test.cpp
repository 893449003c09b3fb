#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "quiver/base/error.h"
#include "quiver/data/encode.h"
#include "quiver/data/tasks.h"
#include "quiver/testing/message_of.h"

namespace quiver::data {
namespace {

namespace fs = std::filesystem;
using testing::error_of;

/// A folder of task files that goes away.
class TaskFolder {
 public:
  TaskFolder() : path_(fs::temp_directory_path() / ("quiver-data-test-" + std::to_string(::getpid()))) { fs::create_directories(path_); }
  ~TaskFolder() { fs::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(LoadTask, ReadsTheCarriedData) {
  const auto task = load_task("data/train", "task363_sst2_polarity_classification");
  EXPECT_EQ(task.train.size(), 802u);
  EXPECT_EQ(task.valid.size(), 109u);
  EXPECT_EQ(task.test.size(), 89u);
  EXPECT_NE(task.train[0].source.find("\n\n"), std::string::npos);
  EXPECT_EQ(list_tasks("data/train").size(), 96u);
}

TEST(LoadTask, NamesFileAndLineOfABadRow) {
  const TaskFolder folder;
  folder.write("t.jsonl", "{\"source\":\"a\",\"target\":\"b\"}\n{\"source\":\"a\",\n");
  EXPECT_NE(error_of([&] { load_task(folder.path(), "t"); }).find("t.jsonl:2"), std::string::npos);
  folder.write("u.jsonl", "{\"source\":\"a\"}\n");
  EXPECT_NE(error_of([&] { load_task(folder.path(), "u"); }).find("targets"), std::string::npos);
  folder.write("v.jsonl", "{\"source\":\"a\",\"target\":\"b\",\"split\":\"dev\"}\n");
  EXPECT_NE(error_of([&] { load_task(folder.path(), "v"); }).find("'dev'"), std::string::npos);
}

TEST(LoadTask, ReadsTheShapesOfTheField) {
  const TaskFolder folder;
  folder.write("t.jsonl",
               "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"instruction\":\"do\",\"input\":\"a\",\"target\":\"b\"}\n"
               "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n");
  const auto task = load_task(folder.path(), "t");
  EXPECT_EQ(task.train[0].source, "a");
  EXPECT_EQ(task.train[1].source, "do\n\na");
  EXPECT_EQ(task.train[2].source, "a");
  for (const auto& row : task.train) EXPECT_EQ(row.targets, std::vector<std::string>{"b"}) << row.where;
  folder.write("u.jsonl", "{\"text\":\"a\",\"label\":1}\n");
  EXPECT_NE(
      error_of([&] { load_task(folder.path(), "u"); }).find("u.jsonl:1 (task 'u'): the row has keys 'label', 'text'; expected 'source'"),
      std::string::npos);
}

TEST(LoadTask, RefusesASecondRowOfOneId) {
  const TaskFolder folder;
  folder.write("t.jsonl",
               "{\"id\":\"x\",\"source\":\"a\",\"target\":\"b\"}\n{\"id\":\"x\",\"source\":\"c\",\"target\":\"d\",\"split\":\"test\"}\n");
  const auto message = error_of([&] { load_task(folder.path(), "t"); });
  EXPECT_NE(message.find("t.jsonl:2: the id 'x' stands at"), std::string::npos) << message;
  EXPECT_NE(message.find("t.jsonl:1 already"), std::string::npos) << message;
  const std::string row = "{\"id\":\"q\",\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":0}\n";
  folder.write("q.jsonl", row + row);
  EXPECT_NE(error_of([&] { load_questions(folder.path(), "q"); }).find("q.jsonl:2: the id 'q' stands at"), std::string::npos);
}

TEST(LoadTask, RowsKnowWhereTheyStand) {
  const TaskFolder folder;
  folder.write("t.jsonl", "{\"source\":\"a\",\"target\":\"b\"}\n\n{\"id\":\"x\",\"source\":\"a\",\"target\":\"b\"}\n");
  const auto file = (folder.path() / "t.jsonl").string();
  const auto rows = load_task(folder.path(), "t").train;
  EXPECT_EQ(rows.at(0).where, file + ":1 (task 't')");
  EXPECT_EQ(rows.at(0).id, file + ":1");
  EXPECT_EQ(rows.at(1).where, file + ":3 (task 't', row 'x')");
  EXPECT_EQ(rows.at(1).id, "x");
  folder.write(
      "q.jsonl",
      "{\"id\":\"y\",\"context\":\"a\",\"choices\":[\"b\"],\"label\":0}\n{\"id\":\"z\",\"context\":\"a\",\"choices\":[],\"label\":0}\n");
  EXPECT_ERROR(load_questions(folder.path(), "q"), ErrorKind::kBadFormat,
               "q.jsonl:2 (set 'q', row 'z'): label 0 is not one of the 0 choices");
  folder.write("q.jsonl", "{\"id\":\"y\",\"context\":\"a\",\"choices\":[\"b\"],\"label\":0}\n");
  EXPECT_EQ(load_questions(folder.path(), "q").at(0).where, (folder.path() / "q.jsonl").string() + ":1 (set 'q', row 'y')");
}

TEST(ListTasks, LeavesHiddenFilesOut) {
  const TaskFolder folder;
  folder.write("t.jsonl", "{\"source\":\"a\",\"target\":\"b\"}\n");
  folder.write("._t.jsonl", "Mac OS X");
  EXPECT_EQ(list_tasks(folder.path()), std::vector<std::string>{"t"});
}

TEST(LoadTask, RefusesEmptyAndUnknownTasks) {
  const TaskFolder folder;
  folder.write("empty.jsonl", "\n\n");
  EXPECT_NE(error_of([&] { load_task(folder.path(), "empty"); }).find("is empty"), std::string::npos);
  EXPECT_NE(error_of([] {
              load_task("data/train", "task363_sst2_polarity_clasification");
            }).find("did you mean 'task363_sst2_polarity_classification'"),
            std::string::npos);
  EXPECT_NE(error_of([] { select_tasks("data/train", "nothing"); }).find("no task 'nothing'"), std::string::npos);
  EXPECT_NE(error_of([] { list_tasks("no/such/folder"); }).find("no/such/folder"), std::string::npos);
}

TEST(Sample, SmallerSamplesArePrefixesOfLargerOnes) {
  std::vector<Example> examples(50);
  for (int i = 0; i < 50; ++i) examples[static_cast<std::size_t>(i)].id = std::to_string(i);
  const auto five = sample(examples, 5, 42, "t"), ten = sample(examples, 10, 42, "t");
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(five[i].id, ten[i].id) << i;
  EXPECT_NE(sample(examples, 5, 43, "t")[0].id + sample(examples, 5, 43, "t")[1].id, five[0].id + five[1].id);
  EXPECT_EQ(sample(examples, 0, 42, "t").size(), 50u);
}

TEST(LoadQuestions, MakesRequestsOfBothModes) {
  const auto arc = load_questions("data/heldout_mc", "arc_easy");
  EXPECT_EQ(arc.size(), 1000u);
  EXPECT_EQ(arc[0].continuations[1], " " + arc[0].choices[1]);
  EXPECT_EQ(arc[0].contexts[0], arc[0].contexts[1]);
  const auto winogrande = load_questions("data/heldout_mc", "winogrande");
  EXPECT_EQ(winogrande[0].continuations[0], winogrande[0].continuations[1]);
  EXPECT_TRUE(winogrande[0].contexts[1].ends_with(winogrande[0].choices[1]));
}

constexpr std::int32_t kLlama3Bos = 1505, kLlama3Eos = 1506;

class Encode : public ::testing::Test {
 protected:
  text::Tokenizer tokenizer_ = text::load_tokenizer("tests/golden/model/llama-tied");
};

TEST_F(Encode, LabelsTheTargetAndEos) {
  const auto sequence = encode_example(tokenizer_, "Say it:", "yes", 0);
  auto expected = tokenizer_.encode("Say it: yes");
  expected.push_back(*tokenizer_.eos_id());
  EXPECT_EQ(sequence.tokens, expected);
  EXPECT_EQ(sequence.num_targets, static_cast<std::int64_t>(tokenizer_.encode(" yes").size()) + 1);
}

TEST_F(Encode, MovesASpaceAtTheEndOfTheSource) {
  EXPECT_EQ(encode_example(tokenizer_, "Say it: ", "yes", 0).tokens, encode_example(tokenizer_, "Say it:", "yes", 0).tokens);
  EXPECT_EQ(encode_example(tokenizer_, "Say it:\n", "yes", 0).tokens.size(), tokenizer_.encode("Say it:\nyes").size() + 1);
}

TEST_F(Encode, CutsFromTheLeft) {
  const auto whole = encode_example(tokenizer_, "A rather long source text", "yes", 0);
  const auto cut = encode_example(tokenizer_, "A rather long source text", "yes", 6);
  EXPECT_EQ(cut.tokens, std::vector<std::int32_t>(whole.tokens.end() - 6, whole.tokens.end()));
  EXPECT_EQ(cut.num_targets, std::min<std::int64_t>(whole.num_targets, 5));
}

TEST(EncodeBare, StartsWithBosWhereTheTokenizerDoes) {
  const auto tokenizer =
      text::load_tokenizer("tests/golden/tokenizer/llama3.json").with_special_ids(kLlama3Bos, {kLlama3Eos}, std::nullopt);
  const auto with_bos = tokenizer.encode("Say it:", {.add_special_tokens = true});
  ASSERT_EQ(with_bos.front(), kLlama3Bos);
  EXPECT_EQ(encode_text(tokenizer, "Say it:"), with_bos);
  EXPECT_EQ(encode_prompt(tokenizer, "Say it: ", 0), with_bos);
  EXPECT_EQ(encode_prompt(tokenizer, "Say it:", 2), (std::vector<std::int32_t>{with_bos.front(), with_bos.back()}));
  const auto example = encode_example(tokenizer, "Say it:", "yes", 0);
  EXPECT_EQ(example.tokens.front(), kLlama3Bos);
  EXPECT_EQ(example.num_targets, static_cast<std::int64_t>(tokenizer.encode(" yes").size()) + 1);
  const auto request = encode_request(tokenizer, "Say it:", " yes");
  EXPECT_EQ(request.tokens, tokenizer.encode("Say it: yes", {.add_special_tokens = true}));
  EXPECT_EQ(request.num_targets, static_cast<std::int64_t>(request.tokens.size() - with_bos.size()));
  EXPECT_EQ(encode_request(tokenizer, "", "yes").tokens.front(), kLlama3Bos);
}

TEST(EncodeBare, CountsTheTargetsOfAMarkedVocabularyAsTheyStandInTheText) {
  // A vocabulary as SentencePiece makes it, which puts a mark before each text: alone, " b" would be two tokens.
  const auto tokenizer =
      text::Tokenizer::from_tokenizer_json(
          {{"model",
            {{"type", "BPE"}, {"vocab", {{"</s>", 0}, {"a", 1}, {"b", 2}, {"▁", 3}, {"▁a", 4}, {"▁b", 5}}}, {"merges", {"▁ a", "▁ b"}}}},
           {"normalizer",
            {{"type", "Sequence"},
             {"normalizers",
              {{{"type", "Prepend"}, {"prepend", "▁"}}, {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
           {"decoder", {{"type", "Fuse"}}}},
          "test")
          .with_special_ids({}, {0}, {});
  const auto example = encode_example(tokenizer, "a", "b", 0);
  EXPECT_EQ(example.tokens, (std::vector<std::int32_t>{4, 5, 0}));
  EXPECT_EQ(example.num_targets, 2);  // "▁b" and EOS
  EXPECT_EQ(encode_request(tokenizer, "a", " b").num_targets, 1);
}

TEST_F(Encode, RequestsKeepContextAndContinuationApart) {
  const auto request = encode_request(tokenizer_, "The answer is  ", "yes");
  EXPECT_EQ(request.tokens, tokenizer_.encode("The answer is  yes"));
  EXPECT_EQ(request.num_targets, static_cast<std::int64_t>(request.tokens.size() - tokenizer_.encode("The answer is").size()));
  const auto wide =
      encode_request(tokenizer_, "The answer is\u3000\u0085\x1c\t", "yes");  // Python's white space, all of it the continuation's
  EXPECT_EQ(wide.num_targets, static_cast<std::int64_t>(wide.tokens.size() - tokenizer_.encode("The answer is").size()));
  EXPECT_EQ(encode_request(tokenizer_, "", "yes").num_targets, static_cast<std::int64_t>(tokenizer_.encode("yes").size()));
  EXPECT_ERROR(encode_request(tokenizer_, "context", ""), ErrorKind::kUsage, "the continuation is empty");
}

}  // namespace
}  // namespace quiver::data
