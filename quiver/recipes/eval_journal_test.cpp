// What is kept of an evaluation, chunk by chunk, and what is taken up again.
#include "quiver/recipes/eval_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

EvalPartKeys keys(const std::string& shared, const std::string& of_quiz = "rows") {
  return {.shared = shared, .tasks = {{"quiz", of_quiz}, {"bbh/navigate", "rows"}, {"humaneval", "rows"}, {"t", "rows"}, {"u", "rows"}}};
}

class Journal : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("quiver-journal-" + std::to_string(::getpid()));
    io::remove_tree(folder_);
    fs::create_directories(folder_);
    path_ = folder_ / "base-choice.jsonl";
  }
  void TearDown() override { io::remove_tree(folder_); }

  std::string text() const { return io::read_text_file(path_); }
  /// Where each line begins, and the end.
  std::vector<std::size_t> line_begins() const {
    std::vector<std::size_t> begins = {0};
    const auto all = text();
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i] == '\n') begins.push_back(i + 1);
    }
    return begins;
  }

  fs::path folder_, path_;
};

results::Sample question() {
  return {.section = "choice",
          .method = "private-arrow(top_k=2)",
          .task = "quiz",
          .id = "row \"1\"",
          .metrics = {{"acc", 1.0}, {"acc_norm", 0.0}},
          .log_probs = {-1.25, -0.1, -1e-300},
          .label = 2,
          .is_greedy = {0, 0, 1}};
}

results::Sample answer() {
  return {.section = "answer",
          .method = "base",
          .task = "bbh/navigate",
          .id = "7",
          .metrics = {{"nll", 0.1 + 0.2}, {"rouge_l", 1.0 / 3}},
          .num_tokens = 5,
          .prediction = "grüße\n\t\"q\" \\ ",
          .targets = {"yes", "", "ja"}};
}

results::Sample program() {
  return {.section = "program",
          .method = "base",
          .task = "humaneval",
          .id = "HumanEval/3",
          .metrics = {{"pass@1", 0.25}},
          .prediction = "",
          .outcome = "exit code 1: AssertionError"};
}

void expect_equal(const results::Sample& found, const results::Sample& expected) {
  SCOPED_TRACE(expected.id);
  // A member more than these is to be compared here, too.
  const auto& [section, method, task, id, metrics, num_tokens, prediction, targets, log_probs, label, outcome, log_likelihood, num_words,
               num_bytes, is_greedy] = found;
  EXPECT_EQ(section, expected.section);
  EXPECT_EQ(method, expected.method);
  EXPECT_EQ(task, expected.task);
  EXPECT_EQ(id, expected.id);
  EXPECT_EQ(metrics, expected.metrics);
  EXPECT_EQ(num_tokens, expected.num_tokens);
  EXPECT_EQ(prediction, expected.prediction);
  EXPECT_EQ(targets, expected.targets);
  EXPECT_EQ(log_probs, expected.log_probs);
  EXPECT_EQ(label, expected.label);
  EXPECT_EQ(outcome, expected.outcome);
  EXPECT_EQ(log_likelihood, expected.log_likelihood);
  EXPECT_EQ(num_words, expected.num_words);
  EXPECT_EQ(num_bytes, expected.num_bytes);
  EXPECT_EQ(is_greedy, expected.is_greedy);
}

void expect_ids(const EvalJournal& journal, const std::vector<std::string>& expected) {
  std::vector<std::string> ids;
  for (const auto& sample : journal.part().samples) ids.push_back(sample.id);
  EXPECT_EQ(ids, expected);
}

EvalPart chunk_of(const std::string& id) {
  auto sample = answer();
  sample.id = id;
  return {.samples = {sample}, .routing = {{"bbh/navigate", {{"layers.0.q", {1, 2}}}}}, .adapters = {"a0", "a1"}};
}

TEST_F(Journal, AllMembersOfSamplesComeBack) {
  {
    EvalJournal journal(path_, keys("the key"));
    journal.append({.samples = {question(), answer()}});
    journal.append({.samples = {program()}});
  }
  EvalJournal journal(path_, keys("the key"));
  ASSERT_EQ(journal.part().samples.size(), 3u);
  expect_equal(journal.part().samples[0], question());
  expect_equal(journal.part().samples[1], answer());
  expect_equal(journal.part().samples[2], program());
  EXPECT_EQ(journal.take().samples.size(), 3u);
}

TEST_F(Journal, ANumberThatIsNotFiniteComesBackAsNone) {
  auto sample = answer();
  sample.metrics = {{"nll", NAN}, {"rouge_l", 0.5}};
  EvalJournal(path_, keys("key")).append({.samples = {sample}});
  const auto found = EvalJournal(path_, keys("key")).take().samples.at(0);
  EXPECT_EQ(found.metrics.at(0).first, "nll");
  EXPECT_TRUE(std::isnan(found.metrics[0].second));
  EXPECT_THAT(found.metrics.at(1), Pair("rouge_l", 0.5));
}

TEST_F(Journal, SumsOfRoutingAddUpOverChunks) {
  const EvalPart first{.routing = {{"t", {{"layers.0.q", {0.5, 0, 1.5}}, {"layers.1.q", {1}}}}}, .adapters = {"a0", "a1", "a2"}};
  const EvalPart second{.routing = {{"t", {{"layers.0.q", {0.25, 2, 0.125}}}}, {"u", {{"layers.0.q", {4}}}}}, .adapters = {}};
  const RoutingSums expected = {{"t", {{"layers.0.q", {0.75, 2, 1.625}}, {"layers.1.q", {1}}}}, {"u", {{"layers.0.q", {4}}}}};
  EvalJournal journal(path_, keys("key"));
  journal.append(first);
  journal.append(second);
  EXPECT_EQ(journal.part().routing, expected);
  EXPECT_THAT(journal.part().adapters, ElementsAre("a0", "a1", "a2")) << "a chunk that names none keeps those before";
  EvalJournal again(path_, keys("key"));
  EXPECT_EQ(again.part().routing, expected);
  EXPECT_THAT(again.part().adapters, ElementsAre("a0", "a1", "a2"));
}

TEST_F(Journal, AnotherKeyBeginsAnew) {
  EvalJournal(path_, keys("key")).append(chunk_of("1"));
  EvalJournal other(path_, keys("another"));
  EXPECT_THAT(other.part().samples, IsEmpty());
  EXPECT_THAT(other.part().routing, IsEmpty());
  other.append(chunk_of("2"));
  expect_ids(EvalJournal(path_, keys("another")), {"2"});
  expect_ids(EvalJournal(path_, keys("key")), {});
}

TEST_F(Journal, TasksComeAndGo) {
  EvalJournal(path_, {.shared = "key", .tasks = {{"bbh/navigate", "rows"}}}).append(chunk_of("1"));
  {
    EvalJournal more(path_, keys("key"));
    expect_ids(more, {"1"});
    EXPECT_EQ(more.num_done("bbh/navigate"), 1u);
    EXPECT_EQ(more.num_done("quiz"), 0u);
    more.append({.samples = {program(), question()}});
  }
  EvalJournal fewer(path_, {.shared = "key", .tasks = {{"humaneval", "rows"}}});
  expect_ids(fewer, {program().id});
  EXPECT_THAT(fewer.part().routing, IsEmpty());
  EvalJournal other_rows(path_, keys("key", "other rows"));
  EXPECT_EQ(other_rows.num_done("quiz"), 0u);
  EXPECT_EQ(other_rows.num_done("bbh/navigate"), 1u);
  EXPECT_EQ(other_rows.part().routing.at("bbh/navigate").at("layers.0.q"), (std::vector<double>{1, 2}));
  std::vector<std::string> tasks;
  for (const auto& sample : EvalJournal(path_, keys("key")).take().samples) tasks.push_back(sample.task);
  EXPECT_THAT(tasks, ElementsAre("quiz", "bbh/navigate", "humaneval")) << "by the order of the tasks";
}

TEST_F(Journal, AnEmptyFileIsBegun) {
  io::write_file_atomic(path_, "");
  EvalJournal journal(path_, keys("key"));
  expect_ids(journal, {});
  journal.append(chunk_of("1"));
  expect_ids(EvalJournal(path_, keys("key")), {"1"});
}

TEST_F(Journal, WithoutAFileNothingIsKept) {
  EvalJournal journal(keys("key"));
  journal.append(chunk_of("1"));
  journal.append(chunk_of("2"));
  expect_ids(journal, {"1", "2"});
  EXPECT_EQ(journal.part().routing.at("bbh/navigate").at("layers.0.q"), (std::vector<double>{2, 4}));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Journal, AFolderThatIsNotThereIsTold) {
  EXPECT_ERROR(EvalJournal(folder_ / "none" / "part.jsonl", keys("key")), ErrorKind::kNotFound, "none");
}

/// A file of four chunks, in which something is changed.
class DamagedJournal : public Journal {
 protected:
  void SetUp() override {
    Journal::SetUp();
    EvalJournal journal(path_, keys("key"));
    for (const char* id : {"1", "2", "3", "4"}) journal.append(chunk_of(id));
    whole_ = text();
    begins_ = line_begins();
    ASSERT_EQ(begins_.size(), 6u);
  }

  /// What is left of `changed` is taken up, and the rest computed again: then the file is whole.
  void expect_taken_up(const std::string& changed, const std::vector<std::string>& ids) {
    io::write_file_atomic(path_, changed);
    {
      EvalJournal journal(path_, keys("key"));
      expect_ids(journal, ids);
      const std::vector<std::string> all = {"1", "2", "3", "4"};
      for (auto i = ids.size(); i < all.size(); ++i) journal.append(chunk_of(all[i]));
      EXPECT_EQ(journal.part().routing.at("bbh/navigate").at("layers.0.q"), (std::vector<double>{4, 8}));
    }
    EXPECT_EQ(text(), whole_);
  }

  std::string whole_;
  std::vector<std::size_t> begins_;  // of the key's line, of four chunks, and the end
};

TEST_F(DamagedJournal, AWholeFileIsTakenUp) { expect_taken_up(whole_, {"1", "2", "3", "4"}); }

TEST_F(DamagedJournal, ACutLineEndsWhatIsTakenUp) {
  expect_taken_up(whole_.substr(0, whole_.size() - 1), {"1", "2", "3"});
  expect_taken_up(whole_.substr(0, begins_[4]), {"1", "2", "3"});
  expect_taken_up(whole_.substr(0, begins_[4] - 1), {"1", "2"});
  expect_taken_up(whole_.substr(0, begins_[2] + 9), {"1"});
  expect_taken_up(whole_.substr(0, begins_[1]), {});
  expect_taken_up(whole_.substr(0, begins_[1] - 2), {});
}

TEST_F(DamagedJournal, ALineThatWasEditedEndsWhatIsTakenUp) {
  auto edited = whole_;
  const auto place = edited.find("\"id\":\"2\"");
  ASSERT_NE(place, std::string::npos);
  edited.replace(place, 8, "\"id\":\"9\"");
  expect_taken_up(edited, {"1"});
}

TEST_F(DamagedJournal, BytesThatWereDamagedEndWhatIsTakenUp) {
  for (const char byte : {'\0', '\xff', 'x', '}', ' ', '\n'}) {
    SCOPED_TRACE(static_cast<int>(byte));
    auto damaged = whole_;
    damaged[begins_[3] + 40] = byte;
    expect_taken_up(damaged, {"1", "2"});
  }
}

TEST_F(DamagedJournal, LinesThatAreNoPartsEndWhatIsTakenUp) {
  for (const char* line : {"", "null", "7", "[]", "{}", R"({"value":{}})", R"({"sha256":7,"value":{}})", R"({"sha256":"","value":{}})"}) {
    SCOPED_TRACE(line);
    expect_taken_up(whole_.substr(0, begins_[2]) + line + "\n" + whole_.substr(begins_[2]), {"1"});
    expect_taken_up(std::string(line) + "\n" + whole_, {});
  }
}

TEST_F(DamagedJournal, AKeyInTheMiddleIsNoPart) {
  const auto key = whole_.substr(0, begins_[1]);
  expect_taken_up(whole_.substr(0, begins_[3]) + key + whole_.substr(begins_[3]), {"1", "2"});
}

}  // namespace
}  // namespace quiver::recipes
