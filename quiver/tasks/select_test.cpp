#include "quiver/tasks/select.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "quiver/tasks/test_support.h"

namespace quiver::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A pack of two sets, two tasks of instructions, and one of Big-Bench Hard.
class Select : public ::testing::Test {
 protected:
  Select() {
    std::string questions, answers;
    for (int i = 0; i < 6; ++i) {
      const auto n = std::to_string(i);
      questions += R"({"id":"q)" + n + R"(","context":"Q)" + n + R"(","choices":["a","b"],"label":0})" + "\n";
      answers += R"({"id":"e)" + n + R"(","source":"S)" + n + R"(","target":"T","split":"test"})" + "\n";
    }
    pack_.write("heldout_mc/piqa.jsonl", questions);
    pack_.write("heldout_mc/both.jsonl", questions);
    pack_.write("train/up.jsonl", answers);
    pack_.write("heldout_sni/both.jsonl", answers);
    pack_.write("heldout_gen/bbh.jsonl", R"({"id":"n","task":"nav","input":"I","target":"T"})");
    pack_.write("heldout_gen/bbh_fewshot.jsonl", R"({"task":"nav","description":"D","demonstrations":[]})");
    own_ = pack_.write("files/mine.jsonl", questions).string();
    declared_ = pack_
                    .write("files/t.yaml",
                           "task: named\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
                           "doc_to_text: source\ndoc_to_target: target\n")
                    .string();
    pack_.write("files/rows.jsonl", answers);
  }

  std::vector<EvalTask> select(const std::string& names, const std::vector<std::string>& limits = {},
                               std::optional<std::int64_t> shots = 0) {
    return select_tasks({.data = pack_.path(), .names = names, .limits = limits, .num_fewshot = shots});
  }
  std::vector<std::string> names(const std::string& list) {
    std::vector<std::string> found;
    for (const auto& task : select(list)) found.push_back(task.group + ":" + task.name);
    return found;
  }
  std::map<std::string, std::size_t> counts(const std::string& list, const std::vector<std::string>& limits) {
    std::map<std::string, std::size_t> rows;
    for (const auto& task : select(list, limits)) rows[task.group + ":" + task.name] = task.num_rows();
    return rows;
  }

  TaskFolder pack_;
  std::string own_, declared_;
};

TEST_F(Select, TakesGroupsTasksAndFilesInOrder) {
  EXPECT_THAT(names("mc"), ElementsAre("mc:both", "mc:piqa"));
  EXPECT_THAT(names("piqa,upstream,bbh"), ElementsAre("mc:piqa", "upstream:up", "bbh:bbh/nav"));
  EXPECT_THAT(names("sni/both,mc/both"), ElementsAre("sni:both", "mc:both"));
  EXPECT_THAT(names("nav"), ElementsAre("bbh:bbh/nav"));
  EXPECT_THAT(names(own_ + ",piqa," + declared_), ElementsAre("own:mine", "mc:piqa", "own:named"));
}

TEST_F(Select, KnowsThePapersTasks) {
  std::vector<std::string> found;
  for (const auto& task : select_tasks({.names = "paper", .limits = {"1"}})) found.push_back(task.name);
  ASSERT_EQ(found.size(), 9u + 27u);
  EXPECT_THAT(std::vector(found.begin(), found.begin() + 8), ElementsAre("piqa", "boolq", "winogrande", "hellaswag", "arc_easy",
                                                                         "arc_challenge", "openbookqa", "bbh/boolean_expressions"));
  EXPECT_EQ(found[34], "humaneval");
  EXPECT_EQ(found[35], "mbpp");
}

TEST_F(Select, RefusesWrongNames) {
  EXPECT_ERROR(select(""), ErrorKind::kUsage, "no task is named");
  EXPECT_ERROR(select("both"), ErrorKind::kUsage, "task 'both' is in several groups: name it 'sni/both' or 'mc/both'");
  EXPECT_ERROR(select("pica"), ErrorKind::kNotFound, "(did you mean 'piqa'?)");
  EXPECT_ERROR(select("navv"), ErrorKind::kNotFound, "(did you mean 'nav'?)");
  EXPECT_ERROR(select("upstrem"), ErrorKind::kNotFound, "no task 'upstrem' in ");
  EXPECT_ERROR(select("upstrem"), ErrorKind::kNotFound, "(did you mean 'upstream'?)");
  EXPECT_ERROR(select("mc,piqa"), ErrorKind::kUsage, "task 'mc/piqa' is named twice");
  EXPECT_ERROR(select("humaneval"), ErrorKind::kNotFound, "has no tasks of group 'humaneval'");
  EXPECT_ERROR(select(own_ + "," + own_), ErrorKind::kUsage, "mine.jsonl' is named twice");
  const auto twin = pack_.write("piqa.jsonl", R"({"source":"S","target":"T"})").string();
  EXPECT_ERROR(select("piqa," + twin), ErrorKind::kUsage, "2 tasks are called 'piqa'; give the task file another name, or another 'task'");
  EXPECT_ERROR(select((pack_ / "files/mien.jsonl").string()), ErrorKind::kNotFound, "(did you mean 'mine.jsonl'?)");
}

TEST_F(Select, LimitsByAllGroupTaskAndFile) {
  using Counts = std::map<std::string, std::size_t>;
  EXPECT_EQ(counts("mc,upstream", {"4"}), (Counts{{"mc:both", 4}, {"mc:piqa", 4}, {"upstream:up", 4}}));
  EXPECT_EQ(counts("mc,upstream", {"4", "mc=3", "piqa=2"}), (Counts{{"mc:both", 3}, {"mc:piqa", 2}, {"upstream:up", 4}}));
  EXPECT_EQ(counts("mc", {"piqa=2", "mc=3"}), (Counts{{"mc:both", 3}, {"mc:piqa", 2}}));
  EXPECT_EQ(counts("mc/both,sni/both", {"sni/both=1", "mc=0"}), (Counts{{"mc:both", 6}, {"sni:both", 1}}));
  EXPECT_EQ(counts(own_ + "," + declared_, {"mine=2", "named=3"}), (Counts{{"own:mine", 2}, {"own:named", 3}}));
  EXPECT_EQ(counts(own_ + "," + declared_, {"t=1"}), (Counts{{"own:mine", 6}, {"own:named", 1}}));
}

TEST_F(Select, RefusesWrongLimits) {
  for (const char* limit : {"x", "-1", "mc=", "mc=x", "1.5", "", "=", "mc=1=x", "99999999999999999999"}) {
    SCOPED_TRACE(limit);
    EXPECT_ERROR(select("mc", {limit}), ErrorKind::kUsage, "expected a number of rows, or NAME=ROWS with a task's or a group's name");
  }
  EXPECT_ERROR(select("mc", {"upstream=3"}), ErrorKind::kUsage, "limit upstream=3: no task or group of this name is chosen");
}

TEST(SelectTasks, AsksTheGenerationTasksInThePapersForm) {
  for (const auto& task : select_tasks({.names = "bbh/navigate,humaneval,mbpp,piqa", .limits = {"2"}, .prompts = Prompts::kPaper}))
    EXPECT_EQ(task.version, task.name == "piqa" ? "1" : "paper-1") << task.name;
  for (const auto& task : select_tasks({.names = "bbh/navigate,humaneval,mbpp", .limits = {"2"}}))
    EXPECT_EQ(task.version, "1") << task.name;
}

}  // namespace
}  // namespace quiver::tasks
