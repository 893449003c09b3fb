// The folder of an evaluation: what is in it, what it is taken for, and what goes from it.
#include "quiver/recipes/eval_folder.h"

#include <gmock/gmock.h>
#include <torch/utils.h>

#include <set>

#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/io/work_folder.h"
#include "quiver/recipes/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Names = std::set<std::string>;

data::Question question(const std::string& context) {
  return {.id = "q1", .choices = {"a", "b"}, .contexts = {context, context}, .continuations = {" a", " b"}, .label = 1, .where = "quiz:1"};
}

tasks::EvalTask quiz(const std::string& name = "quiz") {
  return {.name = name, .section = "choice", .kind = tasks::Kind::kChoice, .metrics = {"acc"}, .questions = {question("Which?")}};
}

tasks::EvalTask ask() {
  tasks::EvalTask task{.name = "bbh/ask",
                       .section = "answer",
                       .kind = tasks::Kind::kAnswer,
                       .metrics = {"exact_match"},
                       .examples = {{.id = "r1", .source = "Say", .targets = {"it"}, .where = "ask:1"}}};
  task.answers.until = {"\n"};
  return task;
}

class EvalFolder : public LibraryOnDisk {
 protected:
  void SetUp() override {
    LibraryOnDisk::SetUp();
    path_ = folder_ / "out";
    setup_.tasks = {quiz(), ask()};
    setup_.methods = {parse_eval_method("base")};
  }

  json run() const { return describe_run(base_, setup_); }
  void begin(FolderUse use) const { begin_folder(path_, run(), use); }
  std::string refusal(FolderUse use) const {
    const auto before = io::read_text_file(path_ / "run.json");
    auto message = quiver::testing::message_of(ErrorKind::kUsage, [&] { begin(use); });
    EXPECT_EQ(io::read_text_file(path_ / "run.json"), before);
    return message;
  }
  json held() const { return io::read_json_file(path_ / "run.json"); }
  void write(const std::string& name, const std::string& text = "mine") const {
    fs::create_directories((path_ / name).parent_path());
    io::write_file_atomic(path_ / name, text);
  }
  /// All files, by their paths in the folder.
  Names files() const {
    Names names;
    for (const auto& entry : fs::recursive_directory_iterator(path_)) {
      if (!entry.is_directory()) names.insert(fs::relative(entry.path(), path_).string());
    }
    return names;
  }

  /// Results of the setup's methods and tasks.
  results::Results results(const std::string& created) const {
    results::Results results{.created = created, .base = {.name = "tiny", .dtype = "float32"}};
    for (const auto& task : setup_.tasks) results.tasks.push_back({.name = task.name, .kind = task.section, .num_samples = 1});
    for (const auto& method : setup_.methods) {
      results.methods.push_back({.name = method.name, .label = method.label});
      for (const auto& task : setup_.tasks) {
        const auto& metric = task.metrics.at(0);
        results.per_task.push_back(
            {.task = task.name, .method = method.name, .metric = metric, .mean = 1, .standard_error = 0, .count = 1});
        results.samples.push_back({.section = task.section,
                                   .method = method.name,
                                   .task = task.name,
                                   .id = task.kind == tasks::Kind::kChoice ? "q1" : "r1",
                                   .metrics = {{metric, 1.0}}});
      }
    }
    results.metrics = {{.name = "acc"}, {.name = "exact_match"}};
    return results;
  }

  fs::path path_;
  EvalSetup setup_;
};

constexpr const char* kFirst = "2026-03-01T12:00:00Z";
constexpr const char* kSecond = "2026-03-02T12:00:00Z";

TEST_F(EvalFolder, ANewFolderHoldsTheRun) {
  for (const auto use : {FolderUse::kNew, FolderUse::kResume, FolderUse::kForce}) {
    begin(use);
    EXPECT_EQ(held(), run());
    io::remove_tree(path_);
    fs::create_directory(path_);  // an empty folder is as good as none
    begin(use);
    EXPECT_EQ(held(), run());
    EXPECT_EQ(files(), Names{"run.json"});
    io::remove_tree(path_);
  }
  EXPECT_ERROR(begin_folder(folder_ / "none" / "out", run(), FolderUse::kNew), ErrorKind::kNotFound,
               "there is no folder '" + (folder_ / "none").string() + "' (create it first)");
  begin_folder(path_.string() + "/", run(), FolderUse::kNew);
  EXPECT_EQ(held(), run());
}

TEST_F(EvalFolder, WhatIsNotItsOwnIsLeftAlone) {
  for (const auto& [name, text] :
       std::map<std::string, std::string>{{"notes.txt", "mine"}, {"run.json", R"({"verb": "train"})"}, {"sub/file", "mine"}}) {
    SCOPED_TRACE(name);
    write(name, text);
    for (const auto use : {FolderUse::kNew, FolderUse::kResume, FolderUse::kForce}) {
      EXPECT_ERROR(begin(use), ErrorKind::kUsage, "holds files, and no run.json of quiver eval: name a new or an empty folder");
    }
    EXPECT_EQ(files(), Names{name});
    EXPECT_EQ(io::read_text_file(path_ / name), text);
    io::remove_tree(path_);
  }
  io::write_file_atomic(path_, "a file");
  EXPECT_ERROR(begin(FolderUse::kForce), ErrorKind::kUsage, "is a file; a folder was expected");
}

TEST_F(EvalFolder, ADamagedRunIsTold) {
  fs::create_directory(path_);
  for (const char* text : {R"({"quiver_eval": 1})", R"({"quiver_eval": "1", "settings": {}, "methods": {}, "tasks": {}})",
                           R"({"quiver_eval": 1, "settings": {}, "methods": [], "tasks": {}})", "{"}) {
    SCOPED_TRACE(text);
    write("run.json", text);
    for (const auto use : {FolderUse::kNew, FolderUse::kResume, FolderUse::kForce})
      EXPECT_ERROR(begin(use), ErrorKind::kBadFormat, "run.json");
  }
}

TEST_F(EvalFolder, AMethodThatNamesAFolderOutsideRemovesNothingThere) {
  fs::create_directory(path_);
  io::write_file_atomic(folder_ / "results_2026-01-01T00-00-00Z.json", "mine");
  auto damaged = run();
  damaged["methods"] = {{"..", "key"}};
  write("run.json", damaged.dump());
  begin(FolderUse::kForce);
  EXPECT_TRUE(fs::exists(folder_ / "results_2026-01-01T00-00-00Z.json"));
}

TEST_F(EvalFolder, TheSameRunIsResumedOrReplaced) {
  begin(FolderUse::kNew);
  EXPECT_EQ(refusal(FolderUse::kNew), "'" + path_.string() + "' holds this run already; `resume` goes on with it, `force` replaces it");
  begin(FolderUse::kResume);
  EXPECT_EQ(held(), run());
  begin(FolderUse::kForce);
  EXPECT_EQ(held(), run());
}

TEST_F(EvalFolder, AnotherRunIsRefusedByItsFirstDifference) {
  begin(FolderUse::kNew);
  const auto first = run();
  const auto expect_refused = [&](const std::string& part) {
    EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("cannot be resumed: " + part));
    EXPECT_THAT(refusal(FolderUse::kNew), HasSubstr("holds another run: " + part));
  };
  const auto original = setup_;
  setup_.rows.max_new_tokens = 7;
  expect_refused("setting max_new_tokens is 64 there and 7 here");
  setup_ = original;
  setup_.rows.scoring = ChoiceScoring::kPaper;
  setup_.tasks[0].questions[0].label = 0;  // comes after settings
  expect_refused("setting scoring is \"lm-eval\" there and \"paper\" here");
  setup_ = original;
  setup_.seed = 1;
  expect_refused("setting seed is 42 there and 1 here");
  setup_ = original;
  setup_.sampling.temperature = 0.5;
  expect_refused("setting temperature is 0.0 there and 0.5 here");
  setup_ = original;
  setup_.tasks[0].questions[0].contexts[1] += "?";
  expect_refused("the content of task quiz is " + first.at("tasks").at("quiz").dump() + " there and " +
                 run().at("tasks").at("quiz").dump());
  setup_ = original;
  const auto placement = base_.lm.placement();
  base_.lm = model::load_model("tests/golden/model/llama-rope-linear", placement);
  expect_refused("the base is " + first.at("base").dump() + " there and " + run().at("base").dump() + " here");
  begin(FolderUse::kForce);
  EXPECT_EQ(held(), run());
}

TEST_F(EvalFolder, AnotherVersionOrSettingIsRefused) {
  begin(FolderUse::kNew);
  auto older = run();
  older["quiver_eval"] = 0;
  write("run.json", older.dump());
  EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("it is of another version of quiver eval"));
  older = run();
  older["settings"].erase("top_p");
  write("run.json", older.dump());
  EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("setting top_p is 1.0 here, and nothing there"));
}

TEST_F(EvalFolder, AMethodWithOtherAdaptersIsRefused) {
  const auto choice = library_of({11, 22});
  setup_.given.source = choice.source;
  setup_.methods = {parse_eval_method("base"), parse_eval_method("private-mean")};
  begin(FolderUse::kNew);
  const auto first = run();
  library::Library::open(choice.source.library).add(adapter("a2", 33), {.tasks = {"a2"}});
  EXPECT_EQ(run().at("methods").at("base"), first.at("methods").at("base"));
  EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("the key of method private-mean is " + first.at("methods").at("private-mean").dump() +
                                                     " there and " + run().at("methods").at("private-mean").dump() + " here"));
}

TEST_F(EvalFolder, EachPartOfATaskIsItsContent) {
  const auto of = [&](const tasks::EvalTask& task) {
    setup_.tasks = {task};
    return run().at("tasks").begin().value();
  };
  Names seen;
  const auto is_new = [&](const auto& change) {
    auto task = ask();
    task.programs = {{"before", "after"}};
    change(task);
    return seen.insert(of(task)).second;
  };
  EXPECT_TRUE(is_new([](auto&) {}));
  EXPECT_TRUE(is_new([](auto& t) { t.examples[0].id = "r2"; }));
  EXPECT_TRUE(is_new([](auto& t) { t.examples[0].source = "Tell"; }));
  EXPECT_TRUE(is_new([](auto& t) { t.examples[0].targets.emplace_back("that"); }));
  EXPECT_TRUE(is_new([](auto& t) { t.examples[0].messages = {{"user", "Say"}, {"assistant", "it"}}; }));
  EXPECT_TRUE(is_new([](auto& t) { t.programs[0].before = ""; }));
  EXPECT_TRUE(is_new([](auto& t) { t.programs[0].after = ""; }));
  EXPECT_TRUE(is_new([](auto& t) { t.metrics = {"rouge_l"}; }));
  EXPECT_TRUE(is_new([](auto& t) { t.answers.until = {"."}; }));
  EXPECT_TRUE(is_new([](auto& t) { t.answers.max_new_tokens = 3; }));
  EXPECT_TRUE(is_new([](auto& t) { t.answers.temperature = 1; }));
  EXPECT_TRUE(is_new([](auto& t) { t.answers.top_p = 0.5; }));
  EXPECT_TRUE(is_new([](auto& t) { t.answers.num_samples = 2; }));
  EXPECT_TRUE(is_new([](auto& t) { t.exact_match.ignore_case = true; }));
  EXPECT_TRUE(is_new([](auto& t) { t.is_bare = true; }));
  EXPECT_FALSE(is_new([](auto& t) { t.examples[0].where = "elsewhere"; }));
  EXPECT_TRUE(seen.insert(of(quiz())).second);
  auto other = quiz();
  other.questions[0].choices[0] = "c";
  EXPECT_TRUE(seen.insert(of(other)).second);
}

TEST_F(EvalFolder, FurtherMethodsAndTasksAreAdded) {
  begin(FolderUse::kNew);
  const auto original = setup_;
  const auto first = run();
  setup_.given.source = library_of({11, 22}).source;
  setup_.methods.push_back(parse_eval_method("private-mean"));
  setup_.tasks.push_back(quiz("more"));
  begin(FolderUse::kResume);
  EXPECT_EQ(held(), run());
  EXPECT_EQ(held().at("methods").size(), first.at("methods").size() + 1);
  EXPECT_EQ(held().at("tasks").size(), first.at("tasks").size() + 1);
  const auto grown = setup_;
  setup_.tasks = original.tasks;
  EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("holds results of 'more': name it in `tasks`, too, beside what is to be added"));
  setup_ = grown;
  setup_.methods = original.methods;
  EXPECT_THAT(refusal(FolderUse::kResume), HasSubstr("holds results of 'private-mean': name it in `methods`, too"));
  setup_ = grown;
  EXPECT_EQ(held(), run()) << "a refusal changes nothing";
}

TEST_F(EvalFolder, FilesHaveTheseNamesAndHoldTheResults) {
  setup_.methods.push_back(parse_eval_method("private-arrow"));
  setup_.methods[1].name = "private-arrow(top_k=2)";
  fs::create_directory(path_);
  json run = {{"methods", {{"base", "k"}, {"private-arrow(top_k=2)", "k"}}}};
  write("run.json", run.dump());
  const auto results_of_both = results(kFirst);
  write_folder(path_, results_of_both, setup_.tasks, /*logs_samples=*/true);
  const std::string second = "private-arrow_top_k_2_-41637958/";
  EXPECT_EQ(files(),
            (Names{"run.json", "quiver.json", "base/results_2026-03-01T12-00-00Z.json", "base/samples_quiz_2026-03-01T12-00-00Z.jsonl",
                   "base/samples_bbh_ask_2026-03-01T12-00-00Z.jsonl", second + "results_2026-03-01T12-00-00Z.json",
                   second + "samples_quiz_2026-03-01T12-00-00Z.jsonl", second + "samples_bbh_ask_2026-03-01T12-00-00Z.jsonl"}));
  EXPECT_EQ(io::read_json_file(path_ / "quiver.json"), results::to_json(results_of_both));
  const auto document = io::read_json_file(path_ / (second + "results_2026-03-01T12-00-00Z.json"));
  EXPECT_EQ(document.at("quiver").at("method").at("name"), "private-arrow(top_k=2)");
  EXPECT_EQ(document.at("results").at("bbh/ask").at("exact_match,none"), 1.0);
  io::JsonLinesReader lines(path_ / "base/samples_quiz_2026-03-01T12-00-00Z.jsonl");
  const auto line = lines.next().value();
  EXPECT_EQ(line.at("arguments"), json::parse(R"({"gen_args_0": {"arg_0": "Which?", "arg_1": " a"},
                                                  "gen_args_1": {"arg_0": "Which?", "arg_1": " b"}})"));
  EXPECT_EQ(line.at("doc"), json::parse(R"({"choices": ["a", "b"], "label": 1})"));
  EXPECT_FALSE(lines.next().has_value());
  io::JsonLinesReader answers(path_ / "base/samples_bbh_ask_2026-03-01T12-00-00Z.jsonl");
  EXPECT_EQ(answers.next().value().at("arguments"), json::parse(R"({"gen_args_0": {"arg_0": "Say", "arg_1": {"until": ["\n"]}}})"));
}

TEST_F(EvalFolder, SamplesAreWrittenWhereTheyAreWanted) {
  begin(FolderUse::kNew);
  write_folder(path_, results(kFirst), setup_.tasks, /*logs_samples=*/false);
  EXPECT_EQ(files(), (Names{"run.json", "quiver.json", "base/results_2026-03-01T12-00-00Z.json"}));
}

TEST_F(EvalFolder, EarlierResultsGoAndForeignFilesStay) {
  begin(FolderUse::kNew);
  write_folder(path_, results(kFirst), setup_.tasks, /*logs_samples=*/true);
  const Names foreign = {"notes.txt",          "base/notes.txt",
                         "base/results_.json", "base/results_2026-03-01T12-00-00.123456.json",
                         "base/samples.jsonl", "other/results_2026-03-01T12-00-00Z.json"};
  for (const auto& name : foreign) write(name);
  write_folder(path_, results(kSecond), setup_.tasks, /*logs_samples=*/false);
  auto expected = foreign;
  expected.insert({"run.json", "quiver.json", "base/results_2026-03-02T12-00-00Z.json"});
  EXPECT_EQ(files(), expected);
  begin(FolderUse::kForce);
  expected = foreign;
  expected.insert("run.json");
  EXPECT_EQ(files(), expected);
}

TEST_F(EvalFolder, EarlierResultsStayUntilTheNewOnesAreWhole) {
  begin(FolderUse::kNew);
  write_folder(path_, results(kFirst), setup_.tasks, /*logs_samples=*/true);
  const auto before = files();
  begin(FolderUse::kResume);
  EXPECT_EQ(files(), before);
  auto broken = results(kSecond);
  broken.samples[1].prediction = "\xff";  // cannot be written
  EXPECT_ERROR(write_folder(path_, broken, setup_.tasks, /*logs_samples=*/true), ErrorKind::kUsage, "UTF-8");
  for (const auto& name : before) EXPECT_TRUE(fs::exists(path_ / name)) << name;
  write_folder(path_, results(kSecond), setup_.tasks, /*logs_samples=*/true);
  for (const auto& name : before) EXPECT_EQ(fs::exists(path_ / name), name == "run.json" || name == "quiver.json") << name;
}

TEST_F(EvalFolder, ForceRemovesFinishedPartsAndEmptyFolders) {
  begin(FolderUse::kNew);
  write_folder(path_, results(kFirst), setup_.tasks, /*logs_samples=*/true);
  io::WorkFolder work(path_ / "parts");
  io::write_file_atomic(work.file("base-choice.jsonl"), "kept");
  begin(FolderUse::kResume);
  EXPECT_TRUE(fs::exists(path_ / "parts/base-choice.jsonl"));
  begin(FolderUse::kForce);
  EXPECT_FALSE(fs::exists(path_ / "parts"));
  EXPECT_FALSE(fs::exists(path_ / "base"));
  EXPECT_EQ(files(), Names{"run.json"});
}

}  // namespace
}  // namespace quiver::recipes
