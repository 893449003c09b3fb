// Task files with lm-evaluation-harness' keys; lm_eval_golden_test.cpp compares what they ask.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/tasks/task_file.h"
#include "quiver/tasks/test_support.h"

namespace quiver::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kRows = R"({"id":"a","q":"1+1","options":["2","3"],"gold":0}
{"id":"b","q":"2+2","options":["3","4"],"gold":1}
{"id":"c","q":"3+3","options":["6","7"],"gold":0}
{"id":"d","q":"4+4","options":["7","8"],"gold":1}
)";
const std::string kData = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n";
const std::string kChoiceTask =
    kData + "output_type: multiple_choice\ndoc_to_text: \"{{q}} =\"\ndoc_to_target: gold\ndoc_to_choice: options\n";
const std::string kAnswerTask = kData + "doc_to_text: q\ndoc_to_target: \"{{options[gold]}}\"\n";

class DeclaredTask : public ::testing::Test {
 protected:
  EvalTask load(const std::string& yaml, const RowChoice& rows = {}) {
    folder_.write("rows.jsonl", rows_);
    return load_task_file(folder_.write("t.yaml", yaml), rows);
  }
  void refuse(ErrorKind kind, const std::string& yaml, const std::string& part) { EXPECT_ERROR(load(yaml), kind, part); }

  TaskFolder folder_;
  std::string rows_ = kRows;
};

TEST_F(DeclaredTask, DrawsTheSameExamplesForAllRows) {
  const auto task = load(kChoiceTask + "task: sums\nnum_fewshot: 2\n");
  EXPECT_EQ(task.name, "sums");
  EXPECT_EQ(task.num_fewshot, 2);
  ASSERT_THAT(task.questions, SizeIs(2));
  const auto& first = task.questions[0].contexts[0];
  const auto before = first.substr(0, first.rfind("\n\n") + 2);
  EXPECT_EQ(before.size(), std::string("1+1 = 2\n\n2+2 = 4\n\n").size());
  EXPECT_TRUE(task.questions[1].contexts[0].starts_with(before));
  EXPECT_EQ(load(kChoiceTask + "task: sums\n", {.num_fewshot = 2}).questions[0].contexts[0], first);
  EXPECT_THAT(load(kChoiceTask + "num_fewshot: 2\n", {.num_fewshot = 0}).questions, SizeIs(4));
  EXPECT_ERROR(load(kChoiceTask, {.num_fewshot = 4}), ErrorKind::kUsage,
               "task 't' has 3 rows beside one that is asked; 4 few-shot examples");
}

TEST_F(DeclaredTask, LimitsAreDrawnAndSmallerOnesArePrefixes) {
  const auto two = ids_of(load(kChoiceTask, {.limit = 2}).questions), three = ids_of(load(kChoiceTask, {.limit = 3}).questions);
  ASSERT_THAT(two, SizeIs(2));
  EXPECT_THAT(three, ElementsAre(two[0], two[1], ::testing::_));
}

TEST_F(DeclaredTask, ReadsJsonTooAndTheMetricsOfAnswers) {
  folder_.write("rows.json", R"([{"q":"x","a":["y","z"]},{"q":"w","a":["v"]}])");
  const auto path = folder_.write("t.json", R"({"task":"spoken","dataset_path":"json","dataset_kwargs":{"data_files":{"dev":"rows.json"}},
    "validation_split":"dev","doc_to_text":"{{q}}?","doc_to_target":"a","metadata":{"version":"2b"},
    "metric_list":[{"metric":"nll","higher_is_better":false},{"metric":"rouge_l"}],"generation_kwargs":{"max_new_tokens":7,"until":[]}})");
  const auto task = load_task_file(path, {});
  EXPECT_EQ(task.name, "spoken");
  EXPECT_EQ(task.version, "2b");
  EXPECT_TRUE(task.scores_target);
  EXPECT_THAT(task.metrics, ElementsAre("nll", "rouge_l"));
  EXPECT_EQ(task.answers.max_new_tokens, 7);
  EXPECT_THAT(task.answers.until, IsEmpty());
  EXPECT_EQ(task.examples[0].source, "x?");
  EXPECT_THAT(task.examples[0].targets, ElementsAre("y", "z"));
  EXPECT_THAT(task_file_names(path), ElementsAre("t", "spoken"));
  EXPECT_ERROR(load_task_file(folder_.write("bad.json", R"({"tsk":"a"})"), {}), ErrorKind::kUsage,
               "bad.json: a task has no key 'tsk' (did you mean 'task'?)");
}

TEST_F(DeclaredTask, IncludesFilesAndOwnKeysCountMore) {
  folder_.write("base/b.yaml", "include: c.yaml\ntask: base\nnum_fewshot: 3\ndoc_to_text: \"b {{q}}\"\n");
  folder_.write("base/c.yaml", kAnswerTask + "description: \"C\\n\"\n");
  folder_.write("base/rows.jsonl", kRows);
  const auto task = load_task_file(folder_.write("t.yaml", "include: base/b.yaml\nnum_fewshot: 0\n"), {});
  EXPECT_EQ(task.name, "base");
  EXPECT_EQ(task.examples[1].source, "C\nb 2+2");
  EXPECT_THAT(task.examples[1].targets, ElementsAre("4"));
  folder_.write("base/c.yaml", kAnswerTask + "\nprocess_docs: !function u.f\n");
  EXPECT_ERROR(load_task_file(folder_ / "t.yaml", {}), ErrorKind::kUnsupported, "base/c.yaml:7: 'process_docs' is a Python function, u.f");
  EXPECT_EQ(load_task_file(folder_.write("t.yaml", "include: base/b.yaml\nnum_fewshot: 0\nprocess_docs: null\n"), {}).name, "base");
  folder_.write("base/c.yaml", "include: b.yaml\n");
  EXPECT_ERROR(load_task_file(folder_ / "t.yaml", {}), ErrorKind::kBadFormat, "base/b.yaml: the file includes itself through 'include'");
}

TEST_F(DeclaredTask, WarnsWhereRowsSeeTheirOwnAnswers) {
  const auto task = load(kChoiceTask + "num_fewshot: 1\nfewshot_config: {sampler: first_n}\n");
  ASSERT_THAT(task.warnings, SizeIs(1));
  EXPECT_THAT(task.warnings[0], HasSubstr("few-shot examples are the first rows of 'test', which is asked"));
  EXPECT_EQ(task.questions[0].contexts[0], "1+1 = 2\n\n1+1 =");
  const auto apart = load(kChoiceTask + "num_fewshot: 1\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n");
  EXPECT_THAT(apart.warnings, IsEmpty());
  EXPECT_EQ(apart.questions[0].contexts[0], "2+2 = 4\n\n1+1 =");
}

TEST_F(DeclaredTask, RefusesKeysByLine) {
  refuse(ErrorKind::kUnsupported, kAnswerTask + "process_docs: !function utils.f\n",
         "t.yaml:6: 'process_docs' is a Python function, utils.f, which Quiver does not run: prepare the rows");
  refuse(ErrorKind::kUnsupported, kAnswerTask + "metric_list:\n  - metric: !function u.f\n",
         "t.yaml:7: 'metric_list' is a Python function");
  refuse(ErrorKind::kUnsupported, kAnswerTask + "gen_prefix: A\n", "t.yaml:6: the key 'gen_prefix' changes results");
  refuse(ErrorKind::kUnsupported, kAnswerTask + "class: X\n", "the key 'class' changes results");
  refuse(ErrorKind::kUsage, kAnswerTask + "\nnum_fewshots: 1\n",
         "t.yaml:7: a task has no key 'num_fewshots' (did you mean 'num_fewshot'?)");
  refuse(ErrorKind::kBadFormat, "- a\n", "a task file is a mapping of keys such as 'task' and 'doc_to_text'; this holds array");
  refuse(ErrorKind::kBadFormat, "a: [\n", "t.yaml: line 2, column 1: not YAML");
  EXPECT_EQ(load(kAnswerTask + "tag: [x]\ntask_alias: y\nunsafe_code: false\nuse_prompt: null\nshould_decontaminate: true\n").name, "t");
  refuse(ErrorKind::kUnsupported, kAnswerTask + "unsafe_code: true\n", "the key 'unsafe_code' changes results");
}

TEST_F(DeclaredTask, RefusesDataOfTheHub) {
  const std::string format = "output_type: generate_until\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\n";
  refuse(ErrorKind::kUnsupported, "dataset_path: allenai/ai2_arc\n" + format,
         "t.yaml:1: the rows of data set 'allenai/ai2_arc' would come from the Hub");
  refuse(ErrorKind::kUnsupported, "dataset_path: json\n" + format,
         "give 'dataset_path: json' and their files as 'dataset_kwargs: {data_files:");
  refuse(ErrorKind::kUnsupported, "dataset_kwargs: {data_files: {test: 'https://x/y.jsonl'}}\n" + format,
         "t.yaml:1: 'https://x/y.jsonl' is no local file");
  refuse(ErrorKind::kUnsupported, "dataset_kwargs: {data_files: rows.jsonl, field: x}\n" + format,
         "t.yaml:1: 'dataset_kwargs' has 'field'");
  refuse(ErrorKind::kNotFound, "dataset_kwargs: {data_files: {test: none.jsonl}}\n" + format,
         "t.yaml:1: there is no file 'none.jsonl', neither as");
  refuse(ErrorKind::kNotFound, "dataset_kwargs: {data_files: {tests: rows.jsonl}}\n" + format,
         "t.yaml:3: the split 'test' has no file in dataset_kwargs.data_files, which has 'tests' (did you mean 'tests'?)");
  refuse(ErrorKind::kBadFormat, "dataset_kwargs: {data_files: rows.jsonl}\ndoc_to_text: q\ndoc_to_target: a\n",
         "neither 'test_split' nor 'validation_split'");
}

TEST_F(DeclaredTask, RefusesValuesByLine) {
  const auto with = [](const std::string& keys) { return kAnswerTask + keys; };
  refuse(ErrorKind::kUnsupported, kData + "output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: q\n",
         "t.yaml:4: Quiver does not ask tasks of output_type 'loglikelihood'");
  refuse(ErrorKind::kBadFormat, kData + "doc_to_text: q\n", "the task has no 'doc_to_target'");
  refuse(ErrorKind::kBadFormat, kData + "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_target: gold\n", "has no 'doc_to_choice'");
  refuse(ErrorKind::kBadFormat, with("repeats: 2\n"), "t.yaml:6: 'repeats' is 2; expected 1");
  refuse(ErrorKind::kUnsupported, with("filter_list:\n  - name: x\n    filter:\n      - function: regex\n"),
         "t.yaml:8: the filter \"regex\" changes answers");
  refuse(ErrorKind::kUnsupported, with("metric_list: [{metric: bleu}]\n"),
         "t.yaml:6: Quiver has no metric 'bleu' for this output_type; it has exact_match, rouge_l and nll");
  refuse(ErrorKind::kUnsupported, with("metric_list: [{metric: exact_match, ignore_cases: true}]\n"),
         "has the option 'ignore_cases', which Quiver does not honour (did you mean 'ignore_case'?)");
  refuse(ErrorKind::kBadFormat, with("metric_list: [{metric: exact_match, aggregation: median}]\n"), "expected 'mean'");
  refuse(ErrorKind::kBadFormat, with("metric_list: [{metric: exact_match, regexes_to_ignore: ['(']}]\n"), "t.yaml:6");
  refuse(ErrorKind::kUnsupported, with("generation_kwargs: {num_beams: 2}\n"), "t.yaml:6: 'generation_kwargs' has 'num_beams'");
  refuse(ErrorKind::kBadFormat, with("generation_kwargs: {do_sample: true}\n"), "'do_sample' is true without a temperature above 0");
  refuse(ErrorKind::kBadFormat, with("generation_kwargs: {max_gen_toks: 0}\n"),
         "'generation_kwargs/max_gen_toks' is 0; expected a number of tokens");
  refuse(ErrorKind::kBadFormat, with("generation_kwargs: {top_p: 2}\n"), "'generation_kwargs/top_p' is 2; expected more than 0, at most 1");
  refuse(ErrorKind::kBadFormat, with("num_fewshot: yes\n"), "'num_fewshot' is true; expected a number of examples");
  refuse(ErrorKind::kUnsupported, with("fewshot_config: {fewshot_indices: [1]}\n"), "'fewshot_config' has 'fewshot_indices'");
  refuse(ErrorKind::kBadFormat, with("fewshot_config: {sampler: balanced}\n"), "expected 'default' or 'first_n'");
  refuse(ErrorKind::kUnsupported, "task: [a, b]\n", "t.yaml:1: 'task' is a list");
  EXPECT_EQ(load(with("generation_kwargs: {do_sample: false, temperature: 0.7, max_tokens: 5}\n")).answers.temperature, 0);
}

TEST_F(DeclaredTask, RefusesTemplatesByKey) {
  const auto of_text = [](const std::string& text) { return kData + "doc_to_target: q\ndoc_to_text: " + text + "\n"; };
  refuse(ErrorKind::kBadFormat, of_text("'{{ q '"), "t.yaml:5: 'doc_to_text': line 1: '{{' without '}}'");
  refuse(ErrorKind::kBadFormat, of_text("'{{ nothing }}'"), "t.yaml:5: 'doc_to_text': line 1: 'nothing' is undefined");
  refuse(ErrorKind::kBadFormat, of_text("'{{ q | regex_replace(1) }}'"),
         "t.yaml:5: 'doc_to_text': line 1: there is no filter 'regex_replace'");
  refuse(ErrorKind::kUnsupported, of_text("'{{ q | tojson }}'"), "the filter 'tojson', which Quiver does not implement for tasks");
  refuse(ErrorKind::kBadFormat, of_text("gold"), "rows.jsonl:1 (task 't'): doc_to_text gives 0; expected a text");
}

TEST_F(DeclaredTask, RefusesRowsByLine) {
  const auto with_rows = [&](const std::string& rows, const std::string& yaml, const std::string& part) {
    rows_ = rows;
    refuse(ErrorKind::kBadFormat, yaml, part);
  };
  const std::string first = R"({"q":"x","options":["a","b"],"gold":0})"
                            "\n";
  with_rows("", kChoiceTask, "t.yaml: the split 'test' has no rows");
  with_rows("[1]", kChoiceTask, "rows.jsonl:1: a row is array; expected an object");
  with_rows(first + R"({"q":"y","options":["a","b"],"gold":2})", kChoiceTask,
            "rows.jsonl:2 (task 't'): label 2 is not one of the 2 choices, 0 to 1");
  with_rows(first + R"({"q":"y","options":["a","b"],"gold":-1})", kChoiceTask, "label -1 is not one of the 2 choices");
  with_rows(first + R"({"q":"y","options":["a","b"],"gold":1.5})", kChoiceTask,
            "the label is 1.5; expected an index or the text of a choice");
  with_rows(R"({"q":"y","options":["a","b"],"gold":"c"})", kChoiceTask, "the label \"c\" is not one of the choices [\"a\",\"b\"]");
  with_rows(R"({"q":"y","options":["a",""],"gold":0})", kChoiceTask, "rows.jsonl:1 (task 't'): choice 1 of 2 is empty");
  with_rows(first + R"({"q":"y","options":"ab","gold":0})", kChoiceTask, "t.yaml:7: 'doc_to_choice': the choices of ");
  with_rows(first + R"({"q":"y","gold":0})", kChoiceTask, "rows.jsonl:2 are null; expected a list of texts");
  with_rows(R"({"id":"1","q":"y","options":["a"],"gold":0})"
            "\n"
            R"({"id":1,"q":"y","options":["a"],"gold":0})",
            kChoiceTask, "rows.jsonl:2 (task 't'): the id '1' stands at ");
  const auto of_targets = kData + "doc_to_text: q\ndoc_to_target: a\n";
  with_rows(R"({"q":"y","a":[]})", of_targets, "doc_to_target gives an empty list");
  with_rows(R"({"q":"y","a":[1]})", of_targets, "doc_to_target gives [1]; expected texts");
  with_rows(R"({"q":"y","a":1.5})", of_targets, "doc_to_target gives 1.5; expected a text or a list of texts");
  with_rows(R"({"q":"y","a":"b"})"
            "\n"
            R"({"q":"y","a":["b"]})",
            of_targets, "rows.jsonl:2 (task 't'): doc_to_target gives a list, and of the first row a text");
  rows_ = R"({"q":"y","options":["a","b"],"gold":[0,1]})";
  refuse(ErrorKind::kUnsupported, kChoiceTask, "the label is the list [0,1]; Quiver knows one right choice");
}

TEST(DeclaredTexts, AreReadAsRollingLikelihoods) {
  const TaskFolder folder;
  folder.write("rows.jsonl", "{\"title\":\"T\",\"text\":\"[1, 2] \",\"n\":7}\n");
  const auto load = [&](const std::string& more) {
    const auto head = "dataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\noutput_type: loglikelihood_rolling\n";
    return load_task_file(folder.write("t.yaml", head + more), {});
  };
  const auto task = load(
      "doc_to_target: \"{{title}}: {{text}}\"\ndescription: none\nmetric_list: [{metric: bits_per_byte, aggregation: bits_per_byte}]\n");
  EXPECT_EQ(task.kind, Kind::kText);
  EXPECT_EQ(task.section, "text");
  EXPECT_TRUE(task.is_bare);
  EXPECT_TRUE(task.scores_target);
  EXPECT_EQ(task.examples[0].targets, std::vector<std::string>{"T: [1, 2] "});
  EXPECT_EQ(task.metrics, std::vector<std::string>{"bits_per_byte"});
  EXPECT_EQ(load("doc_to_target: text\n").metrics, (std::vector<std::string>{"word_perplexity", "byte_perplexity", "bits_per_byte"}));
  EXPECT_ERROR(load("doc_to_target: n\n"), ErrorKind::kBadFormat, "doc_to_target gives 7; expected a text");
  EXPECT_ERROR(load("doc_to_text: title\n"), ErrorKind::kBadFormat, "the task has no 'doc_to_target'");
  EXPECT_ERROR(load("doc_to_target: text\nnum_fewshot: 2\n"), ErrorKind::kUsage, "0 solved examples, being texts; 2 few-shot");
  EXPECT_ERROR(load("doc_to_target: text\nmetric_list: [{metric: acc}]\n"), ErrorKind::kUnsupported, "no metric 'acc'");
  EXPECT_ERROR(load("doc_to_target: text\nmetric_list: [{metric: bits_per_byte, aggregation: mean}]\n"), ErrorKind::kBadFormat,
               "expected 'bits_per_byte'");
  EXPECT_ERROR(load("doc_to_target: text\nmetric_list: [{metric: word_perplexity, higher_is_better: true}]\n"), ErrorKind::kBadFormat,
               "expected false");
}

}  // namespace
}  // namespace quiver::tasks
