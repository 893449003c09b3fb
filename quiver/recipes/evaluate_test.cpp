// A whole evaluation of a tiny model against each sequence and each answer alone.
#include "quiver/recipes/evaluate.h"

#include <gmock/gmock.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "quiver/eval/score.h"
#include "quiver/io/file.h"
#include "quiver/metrics/rouge.h"
#include "quiver/model/generate.h"
#include "quiver/recipes/evaluation_test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Counts what is done, and ends the work at a chunk.
struct Watcher : NoProgress {
  std::int64_t chunks = 0, rows = 0, resumed = 0, last = -1;
  void advance(std::int64_t count, std::string_view) override {
    rows += count;
    if (++chunks == last) fail(ErrorKind::kInterrupted, "stopped by the test");
  }
  void resume(std::int64_t count) override { resumed += count; }
};

void expect_near(const results::Sample& found, const results::Sample& expected) {
  SCOPED_TRACE(name_of(expected));
  EXPECT_EQ(name_of(found), name_of(expected));
  EXPECT_EQ(found.section, expected.section);
  EXPECT_EQ(found.prediction, expected.prediction);
  EXPECT_EQ(found.targets, expected.targets);
  EXPECT_EQ(found.label, expected.label);
  EXPECT_EQ(found.num_tokens, expected.num_tokens);
  EXPECT_EQ(found.outcome, expected.outcome);
  ASSERT_EQ(found.log_probs.size(), expected.log_probs.size());
  EXPECT_EQ(found.is_greedy, expected.is_greedy);
  for (std::size_t i = 0; i < found.log_probs.size(); ++i) EXPECT_NEAR(found.log_probs[i], expected.log_probs[i], 5e-4);
  ASSERT_EQ(found.metrics.size(), expected.metrics.size());
  for (const auto& [name, value] : expected.metrics) EXPECT_NEAR(metric_of(found, name), value, 2e-4) << name;
}

// ---- The plain twin

/// The likelihood of one sequence, computed alone.
eval::SequenceScore score_alone(const methods::AdaptedModel& model, forest::Sequence sequence) {
  NoProgress quiet;
  std::vector<forest::Sequence> one = {std::move(sequence)};
  const auto leases = model.assign_groups(one, quiet);
  return eval::score_sequences(model.lm, one, {}, quiet).at(0);
}

std::string answer_alone(const methods::BaseModel& base, const methods::AdaptedModel& model, const EvalRows& rows, std::size_t row,
                         const EvalSetup& setup) {
  NoProgress quiet;
  const std::vector<std::vector<std::int32_t>> prompts = {rows.prompts[row]};
  model::GenerateOptions options;
  for (const auto& lease : model.groups_of(prompts, quiet)) options.groups.push_back(lease);
  const schedule::RequestOptions request{.max_new_tokens = setup.rows.max_new_tokens,
                                         .stop_ids = data::stop_ids(base.tokenizer, base.format)};
  const auto ids = model::generate(model.lm, prompts, request, options).at(0);
  return base.tokenizer.decode(ids, /*skip_special=*/true);
}

std::int64_t largest(const std::vector<double>& values) {
  return std::distance(values.begin(), std::max_element(values.begin(), values.end()));
}

/// Choices compared by sums, and per character and byte: the text with its space is what lm-eval counts.
results::Sample question_alone(const methods::AdaptedModel& model, const EvalRows& rows, std::size_t row) {
  const auto& question = rows.task.questions[row];
  results::Sample sample{.section = "choice", .task = rows.task.name, .id = question.id, .label = question.label};
  std::vector<double> by_characters, by_bytes;
  for (std::size_t i = 0; i < 3; ++i) {  // all questions here have three choices
    const auto score = score_alone(model, rows.sequences[3 * row + i]);
    sample.log_probs.push_back(score.log_prob);
    sample.is_greedy.push_back(score.is_greedy ? 1 : 0);
    const auto& text = question.choices[i];
    const auto characters = std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
    by_characters.push_back(sample.log_probs[i] / static_cast<double>(characters));
    by_bytes.push_back(sample.log_probs[i] / static_cast<double>(text.size()));
  }
  const auto hit = [&](const std::vector<double>& values) { return largest(values) == question.label ? 1.0 : 0.0; };
  sample.metrics = {{"acc", hit(sample.log_probs)}, {"acc_norm", hit(by_characters)}, {"acc_bytes", hit(by_bytes)}};
  return sample;
}

results::Sample example_alone(const methods::BaseModel& base, const methods::AdaptedModel& model, const EvalRows& rows, std::size_t row,
                              const EvalSetup& setup) {
  const auto& example = rows.task.examples[row];
  results::Sample sample{.section = rows.task.section, .task = rows.task.name, .id = example.id};
  const auto score = score_alone(model, rows.sequences[row]);
  sample.metrics = {{"nll", -score.log_prob / static_cast<double>(score.token_log_probs.size())}};
  sample.num_tokens = rows.sequences[row].num_targets;
  sample.targets = example.targets;
  auto text = answer_alone(base, model, rows, row, setup);
  text.erase(0, text.find_first_not_of(" \n"));
  double best = 0;
  for (const auto& target : example.targets) best = std::max(best, metrics::rouge_l(target, text).f_measure);
  sample.metrics.emplace_back("rouge_l", best);
  if (std::ranges::find(rows.task.metrics, "exact_match") != rows.task.metrics.end()) {
    const auto bare = text.substr(0, text.find_last_not_of(" \n") + 1);
    const bool is_right = std::ranges::find(example.targets, bare) != example.targets.end();
    sample.metrics.emplace_back("exact_match", is_right ? 1.0 : 0.0);
  }
  sample.prediction = text;
  return sample;
}

class EvaluationOf : public Evaluation, public ::testing::WithParamInterface<const char*> {};

TEST_P(EvaluationOf, EachSampleIsThatOfItsRowAlone) {
  const std::string name = GetParam();
  methods({name});
  const auto found = samples();
  const auto library = library::Library::open(setup_.given.source.library);
  std::size_t count = 0;
  for (const auto& task : setup_.tasks) {
    if (setup_.methods[0].is_oracle() && task.section != "train") continue;
    const auto model = methods::adapted_model(base_, use_for(setup_.methods[0], setup_.given, &library, task.name).value(), progress_);
    const auto rows = encode_rows(base_, task, setup_.rows);
    for (std::size_t row = 0; row < task.num_rows(); ++row) {
      auto expected = task.kind == tasks::Kind::kChoice ? question_alone(model, rows, row) : example_alone(base_, model, rows, row, setup_);
      expected.method = name;
      ASSERT_TRUE(found.contains(name_of(expected))) << name_of(expected);
      expect_near(found.at(name_of(expected)), expected);
      ++count;
    }
  }
  EXPECT_EQ(found.size(), count);
}

INSTANTIATE_TEST_SUITE_P(Methods, EvaluationOf,
                         ::testing::Values("base", "private-mean", "private-arrow", "private-logo", "private-oracle"),
                         [](const auto& method) {
                           std::string name = method.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_F(Evaluation, SamplesStandByMethodTaskAndRow) {
  methods({"base", "private-oracle", "private-mean"});
  const auto results = evaluated();
  std::vector<std::string> order;
  for (const auto& sample : results.samples) {
    const auto group = sample.section + " " + sample.method + " " + sample.task;
    if (order.empty() || order.back() != group) order.push_back(group);
  }
  EXPECT_THAT(order, ElementsAre("train base a0", "train base a1", "train private-oracle a0", "train private-oracle a1",
                                 "train private-mean a0", "train private-mean a1", "choice base quiz", "choice base riddle",
                                 "choice private-mean quiz", "choice private-mean riddle", "answer base mine", "answer private-mean mine"));
  ASSERT_THAT(results.tasks, SizeIs(5));
  EXPECT_EQ(results.tasks[0].num_samples, 34);
  EXPECT_EQ(results.tasks[0].fingerprint, encode_rows(base_, setup_.tasks[0], setup_.rows).fingerprint);
  EXPECT_EQ(results.base.content, base_.lm.content_hash());
}

// ---- Journals

void expect_same(const results::Results& found, const results::Results& expected) {
  ASSERT_EQ(found.samples.size(), expected.samples.size());
  for (std::size_t i = 0; i < found.samples.size(); ++i) expect_near(found.samples[i], expected.samples[i]);
  ASSERT_EQ(found.routing.size(), expected.routing.size());
  for (std::size_t i = 0; i < found.routing.size(); ++i) {
    EXPECT_EQ(found.routing[i].adapters, expected.routing[i].adapters);
    ASSERT_EQ(found.routing[i].tasks.size(), expected.routing[i].tasks.size());
    for (std::size_t t = 0; t < found.routing[i].tasks.size(); ++t) {
      const auto& task = found.routing[i].tasks[t];
      const auto& other = expected.routing[i].tasks[t];
      EXPECT_EQ(task.task, other.task);
      ASSERT_EQ(task.layers.size(), other.layers.size());
      for (std::size_t l = 0; l < task.layers.size(); ++l) {
        EXPECT_EQ(task.layers[l].layer, other.layers[l].layer);
        EXPECT_THAT(task.layers[l].share, ::testing::Pointwise(::testing::DoubleNear(1e-6), other.layers[l].share));
      }
    }
  }
}

TEST_F(Evaluation, ARunThatIsStoppedAtAnyChunkGoesOnToTheSameResults) {
  const auto whole = evaluated();
  ASSERT_THAT(whole.routing, SizeIs(1));
  EXPECT_THAT(whole.routing[0].adapters, ElementsAre("a0", "a1"));
  Watcher unbroken;
  setup_.work = folder_ / "unbroken";
  expect_same(evaluate(base_, setup_, unbroken), whole);
  ASSERT_EQ(unbroken.chunks, 10) << "68 answers in 2, 2 tasks of choices in 2, 3 answers in 1; of two methods";
  for (std::int64_t last = 1; last <= unbroken.chunks; ++last) {
    SCOPED_TRACE(last);
    setup_.work = folder_ / format("stopped-{}", last);
    Watcher stopped, resumed;
    stopped.last = last;
    EXPECT_ERROR(evaluate(base_, setup_, stopped), ErrorKind::kInterrupted, "stopped by the test");
    expect_same(evaluate(base_, setup_, resumed), whole);
    EXPECT_EQ(resumed.chunks, unbroken.chunks - last + 1) << "what was done is not done again";
    EXPECT_EQ(resumed.rows + resumed.resumed, unbroken.rows);
  }
}

TEST_F(Evaluation, AJournalThatIsCutAnywhereGivesTheSameResults) {
  setup_.work = folder_ / "work";
  const auto whole = evaluated();
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(setup_.work)) {
    if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
  }
  EXPECT_THAT(files, SizeIs(6));
  for (const double share : {0.0, 0.02, 0.3, 0.7, 0.999}) {
    SCOPED_TRACE(share);
    for (const auto& file : files) fs::resize_file(file, static_cast<std::uintmax_t>(share * static_cast<double>(fs::file_size(file))));
    expect_same(evaluated(), whole);
  }
  Watcher again;
  expect_same(evaluate(base_, setup_, again), whole);
  EXPECT_EQ(again.chunks, 0);
}

TEST_F(Evaluation, WhatWasDoneForOtherSettingsIsNotTakenUp) {
  setup_.work = folder_ / "work";
  methods({"base"});
  evaluated();
  const auto chunks = [&] {
    Watcher watcher;
    evaluate(base_, setup_, watcher);
    return watcher.chunks;
  };
  EXPECT_EQ(chunks(), 0);
  setup_.rows.max_new_tokens = 7;
  EXPECT_EQ(chunks(), 5);
  setup_.programs.limits.output_bytes = 1000;
  EXPECT_EQ(chunks(), 5);
  setup_.tasks[3].questions[0].label = 2;
  EXPECT_EQ(chunks(), 1) << "the task alone";
  EXPECT_EQ(chunks(), 0);
  const auto all = setup_.tasks;
  std::erase_if(setup_.tasks, [&](const auto& task) { return task.name == all[2].name; });
  EXPECT_EQ(chunks(), 0) << "fewer tasks";
  setup_.tasks = all;
  EXPECT_EQ(chunks(), 0) << "what another run wanted is still there";
}

// ---- Answers

TEST_F(Evaluation, StopStringsCutAnswers) {
  methods({"base"});
  setup_.rows.max_new_tokens = 24;
  setup_.tasks = {setup_.tasks[0]};
  const auto whole = samples();
  // Stops that occur: two letters in the middle of some answers.
  const auto& text = *whole.begin()->second.prediction;
  ASSERT_GT(text.size(), 12u);
  const std::vector<std::string> stops = {text.substr(6, 2), "never said", text.substr(10, 1)};
  setup_.tasks[0].answers.until = stops;
  std::size_t num_cut = 0;
  const auto model = methods::adapted_model(base_, {}, progress_);
  const auto rows = encode_rows(base_, setup_.tasks[0], setup_.rows);
  const auto cut = samples();
  for (std::size_t row = 0; row < rows.prompts.size(); ++row) {
    auto expected = answer_alone(base_, model, rows, row, setup_);
    auto end = expected.size();
    for (const auto& stop : stops) end = std::min(end, expected.find(stop));
    num_cut += end < expected.size() ? 1 : 0;
    expected.resize(end);
    expected.erase(0, expected.find_first_not_of(" \n"));
    EXPECT_EQ(cut.at("base a0 " + rows.task.examples[row].id).prediction, expected);
  }
  EXPECT_GE(num_cut, 1u);
}

TEST_F(Evaluation, SampledAnswersDoNotDependOnTheOrderOfTasksAndMethods) {
  setup_.sampling = {.temperature = 0.9, .top_p = 0.95};
  std::erase_if(setup_.tasks, [](const auto& task) { return task.kind == tasks::Kind::kChoice; });
  const auto first = samples();
  std::ranges::reverse(setup_.tasks);
  methods({"private-arrow", "private-mean", "base"});
  const auto second = samples();
  for (const auto& [name, sample] : first) {
    ASSERT_TRUE(second.contains(name)) << name;
    expect_near(second.at(name), sample);
  }
  setup_.seed = 43;
  std::size_t num_other = 0;
  const auto third = samples();
  for (const auto& [name, sample] : first) num_other += third.at(name).prediction != sample.prediction ? 1 : 0;
  EXPECT_GT(num_other, first.size() / 2);
  setup_.sampling.temperature = 0;
  const auto greedy = samples();
  for (auto& task : setup_.tasks) task.answers.temperature = 0;  // a task's own counts more than the run's
  setup_.sampling.temperature = 2;
  for (const auto& [name, sample] : samples()) expect_near(sample, greedy.at(name));
}

TEST_F(Evaluation, ProgramsAreJudgedByTheirTests) {
  methods({"base"});
  tasks::EvalTask task{.name = "code",
                       .section = "program",
                       .kind = tasks::Kind::kProgram,
                       .scores_target = false,
                       .metrics = {"pass@1"},
                       .examples = {{.id = "right", .source = "def f():", .targets = {"x"}, .where = "code:1"},
                                    {.id = "wrong", .source = "def g():", .targets = {"y"}, .where = "code:2"},
                                    {.id = "some", .source = "def h():", .targets = {"z"}, .where = "code:3"}},
                       .programs = {{"answer = r'''", "'''\nassert len(answer) >= 0\n"},
                                    {"answer = r'''", "'''\nassert answer is None\n"},
                                    {"answer = r'''", "'''\nassert hash(answer) % 2 == 0\n"}}};
  task.answers.until = {"'", std::string(1, '\0')};  // what no such string may hold
  task.answers.num_samples = 12;
  task.answers.temperature = 1;
  setup_.tasks = {task};
  setup_.programs.isolation = sandbox::Isolation::kNone;
  const auto found = samples();
  const auto& right = found.at("base code right");
  EXPECT_EQ(metric_of(right, "pass@1"), 1);
  EXPECT_EQ(metric_of(right, "pass@10"), 1);
  EXPECT_THAT(right.metrics, SizeIs(2));
  EXPECT_EQ(right.outcome, "passed");
  EXPECT_THAT(right.targets, ElementsAre("x"));
  const auto& wrong = found.at("base code wrong");
  EXPECT_EQ(metric_of(wrong, "pass@1"), 0);
  EXPECT_EQ(metric_of(wrong, "pass@10"), 0);
  EXPECT_EQ(wrong.outcome, "exit code 1: AssertionError");
  const double share = metric_of(found.at("base code some"), "pass@1") * 12;
  EXPECT_NEAR(share, std::round(share), 1e-9);
  EXPECT_GT(share, 0);
  EXPECT_LT(share, 12);
}

TEST_F(Evaluation, ThePapersScoringIsTheMeanOverTokensAndEos) {
  methods({"private-mean"});
  setup_.rows.scoring = ChoiceScoring::kPaper;
  setup_.tasks = {setup_.tasks[2]};
  const auto found = samples();
  const auto rows = encode_rows(base_, setup_.tasks[0], setup_.rows);
  const auto library = library::Library::open(setup_.given.source.library);
  const auto model = methods::adapted_model(base_, use_for(setup_.methods[0], setup_.given, &library, "").value(), progress_);
  for (std::size_t row = 0; row < 5; ++row) {
    const auto& sample = found.at("private-mean quiz " + std::to_string(row));
    std::vector<double> means;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto& sequence = rows.sequences[3 * row + i];
      means.push_back(score_alone(model, sequence).log_prob / static_cast<double>(sequence.num_targets));
    }
    EXPECT_THAT(sample.log_probs, ::testing::Pointwise(::testing::DoubleNear(1e-4), means));
    EXPECT_THAT(sample.metrics, ElementsAre(::testing::Pair("acc", largest(means) == sample.label ? 1.0 : 0.0)));
  }
}

TEST_F(Evaluation, WithoutGenerationThereAreLikelihoodsAlone) {
  methods({"base"});
  const auto whole = samples();
  setup_.rows.generates = false;
  for (const auto& [name, sample] : samples()) {
    EXPECT_FALSE(sample.prediction.has_value());
    const bool is_choice = sample.section == "choice";
    EXPECT_THAT(sample.metrics, SizeIs(is_choice ? 3 : 1));
    if (is_choice) continue;
    EXPECT_NEAR(metric_of(sample, "nll"), metric_of(whole.at(name), "nll"), 1e-4);
  }
  setup_.tasks[0].scores_target = false;
  EXPECT_ERROR(evaluated(), ErrorKind::kUsage, "task 'a0' needs answers, which `generates=false` leaves out");
}

TEST_F(Evaluation, RefusesWhatItCannotDo) {
  auto setup = setup_;
  setup.methods.clear();
  EXPECT_ERROR(evaluate(base_, setup, progress_), ErrorKind::kUsage, "no evaluation method is named");
  setup = setup_;
  setup.tasks.clear();
  EXPECT_ERROR(evaluate(base_, setup, progress_), ErrorKind::kUsage, "nothing to evaluate: no task is named");
  setup = setup_;
  setup.given.source.library.clear();
  EXPECT_ERROR(evaluate(base_, setup, progress_), ErrorKind::kUsage, "evaluation method 'private-arrow' needs `library`");
}

TEST_F(Evaluation, RowsThatWereCutAreAWarning) {
  methods({"base"});
  setup_.tasks = {setup_.tasks[2]};
  setup_.tasks[0].questions[1].contexts[2] = std::string(2000, 'Q');
  const auto results = evaluated();
  EXPECT_EQ(results.tasks.at(0).num_cut, 1);
  const auto found = std::ranges::find(results.warnings, "cut rows", &results::Warning::kind);
  ASSERT_NE(found, results.warnings.end());
  EXPECT_EQ(found->task, "quiz");
  EXPECT_THAT(found->text, HasSubstr("1 of 5 rows are longer than the model's context and lost tokens at their left"));
  EXPECT_THAT(results.routing, IsEmpty());
}

}  // namespace
}  // namespace quiver::recipes
