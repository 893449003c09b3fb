// Tasks as tokens: what is scored, what is continued, and what is cut.
#include "quiver/recipes/eval_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <set>

#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kBos = 1, kEos = 2;
constexpr std::int64_t kContext = 256;  // of the tiny model
constexpr const char* kTurns =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

class Rows : public ::testing::Test {
 protected:
  /// BOS stands before each text, as in Llama's tokenizers.
  void begin_with_bos() {
    auto description = io::read_json_file("tests/golden/model/llama-tied/tokenizer.json");
    description["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}})");
    base_.tokenizer = text::Tokenizer::from_tokenizer_json(description, "test").with_special_ids(kBos, {kEos}, kEos);
  }
  void chat() { base_.format.chat = text::ChatTemplate(kTurns, "test", base_.tokenizer); }
  Ids ids(const std::string& text) const { return base_.tokenizer.encode(text); }

  methods::BaseModel base_ = methods::load_base("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
};

Ids operator+(Ids some, const Ids& more) {
  some.insert(some.end(), more.begin(), more.end());
  return some;
}

/// The last `count` of them.
Ids last(const Ids& ids, std::int64_t count) { return {ids.end() - count, ids.end()}; }

/// A text of as many tokens: each letter is one here, since no two of them were merged.
std::string letters(std::int64_t count) {
  std::string text;
  for (std::int64_t i = 0; i < count; ++i) text += "QXZJ"[i * i % 7 % 4];
  return text;
}

data::Question question_of(const std::vector<std::string>& contexts, const std::vector<std::string>& continuations) {
  return {.id = "q", .choices = continuations, .contexts = contexts, .continuations = continuations, .where = "quiz:1 (row 'q')"};
}

tasks::EvalTask choices(std::vector<data::Question> questions) {
  return {.name = "quiz", .section = "choice", .kind = tasks::Kind::kChoice, .questions = std::move(questions)};
}

tasks::EvalTask answers(const std::string& source, const std::string& target) {
  return {.name = "ask",
          .section = "answer",
          .kind = tasks::Kind::kAnswer,
          .metrics = {"nll"},
          .examples = {{.id = "1", .source = source, .targets = {target, "another"}, .where = "ask:1 (row '1')"}}};
}

std::vector<std::int64_t> targets_of(const EvalRows& rows) {
  std::vector<std::int64_t> targets;
  for (const auto& sequence : rows.sequences) targets.push_back(sequence.num_targets);
  return targets;
}

TEST_F(Rows, ChoicesFollowTheirContexts) {
  const auto rows =
      encode_rows(base_, choices({question_of({"Where?", "Where?"}, {" here", " far"}), question_of({"So"}, {" be it"})}), {});
  ASSERT_EQ(rows.sequences.size(), 3u);
  EXPECT_EQ(rows.sequences[0].tokens, ids("Where? here"));
  EXPECT_EQ(rows.sequences[1].tokens, ids("Where? far"));
  EXPECT_EQ(rows.sequences[2].tokens, ids("So be it"));
  EXPECT_EQ(targets_of(rows), (std::vector<std::int64_t>{std::ssize(ids(" here")), std::ssize(ids(" far")), std::ssize(ids(" be it"))}));
  EXPECT_EQ(rows.names, std::vector<std::string>(3, "quiz:1 (row 'q')"));
  EXPECT_THAT(rows.prompts, IsEmpty());
  EXPECT_EQ(rows.num_cut, 0);
  EXPECT_EQ(rows.task.name, "quiz");
}

TEST_F(Rows, ThePapersScoringEndsChoicesWithEos) {
  const auto task = choices({question_of({"Where?", "Where?"}, {" here", " far"})});
  const auto rows = encode_rows(base_, task, {.scoring = ChoiceScoring::kPaper});
  const auto plain = encode_rows(base_, task, {.scoring = ChoiceScoring::kLmEval});
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(rows.sequences[i].tokens, plain.sequences[i].tokens + Ids{kEos});
    EXPECT_EQ(rows.sequences[i].num_targets, plain.sequences[i].num_targets + 1);
  }
  base_.tokenizer = base_.tokenizer.with_special_ids(kBos, {}, {});
  EXPECT_ERROR(encode_rows(base_, task, {.scoring = ChoiceScoring::kPaper}), ErrorKind::kUnsupported, "give `scoring=lm-eval`");
  EXPECT_EQ(encode_rows(base_, task, {}).fingerprint, plain.fingerprint);
}

TEST_F(Rows, InAConversationTheTemplateSeparatesContextAndChoice) {
  chat();
  const auto begin = std::string("<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n");
  const auto rows = encode_rows(base_, choices({question_of({"Where?", "Where?", "Where?"}, {" here", "far", "  off"})}), {});
  EXPECT_EQ(rows.sequences[0].tokens, ids(begin) + ids("here")) << "one space is dropped";
  EXPECT_EQ(rows.sequences[1].tokens, ids(begin) + ids("far"));
  EXPECT_EQ(rows.sequences[2].tokens, ids(begin) + ids(" off"));
  // As in lm-eval, the line break that ends the prompt is a target, too; the paper counts the choice and its end.
  EXPECT_EQ(targets_of(rows), (std::vector<std::int64_t>{std::ssize(ids("\nhere")), std::ssize(ids("\nfar")), std::ssize(ids("\n off"))}));
  const auto paper = encode_rows(base_, choices({question_of({"Where?"}, {" here"})}), {.scoring = ChoiceScoring::kPaper});
  EXPECT_EQ(paper.sequences[0].tokens, rows.sequences[0].tokens + Ids{kEos});
  EXPECT_EQ(targets_of(paper), (std::vector<std::int64_t>{std::ssize(ids("here")) + 1}));
}

TEST_F(Rows, ABareTaskIsBareWithAChatBase) {
  const auto question = choices({question_of({"Where?"}, {" here"})});
  const auto bare = encode_rows(base_, question, {});
  const auto bare_answer = encode_rows(base_, answers("Say", "it"), {});
  chat();
  auto task = question;
  task.is_bare = true;
  EXPECT_EQ(encode_rows(base_, task, {}).fingerprint, bare.fingerprint);
  EXPECT_NE(encode_rows(base_, question, {}).fingerprint, bare.fingerprint);
  auto answer = answers("Say", "it");
  answer.is_bare = true;
  EXPECT_EQ(encode_rows(base_, answer, {}).prompts, bare_answer.prompts);
  EXPECT_EQ(encode_rows(base_, answer, {}).fingerprint, bare_answer.fingerprint);
  EXPECT_FALSE(format_of(base_, answer).chat.has_value());
  EXPECT_TRUE(format_of(base_, question).chat.has_value());
}

TEST_F(Rows, AnswersHaveAReferenceAndAPrompt) {
  const auto rows = encode_rows(base_, answers("Say ", "it"), {});
  ASSERT_EQ(rows.sequences.size(), 1u);
  EXPECT_EQ(rows.sequences[0].tokens, ids("Say it") + Ids{kEos}) << "the first target";
  EXPECT_EQ(rows.sequences[0].num_targets, std::ssize(ids(" it")) + 1);
  EXPECT_THAT(rows.prompts, ElementsAre(ids("Say")));
  EXPECT_THAT(rows.names, ElementsAre("ask:1 (row '1')"));
  EXPECT_EQ(rows.num_cut, 0);
  auto unscored = answers("Say ", "it");
  unscored.scores_target = false;
  EXPECT_THAT(encode_rows(base_, unscored, {}).sequences, IsEmpty());
  EXPECT_THAT(encode_rows(base_, unscored, {}).prompts, ElementsAre(ids("Say")));
}

TEST_F(Rows, AnswersOfAConversationAreTheAssistants) {
  chat();
  const auto rows = encode_rows(base_, answers("Say", "it"), {});
  const auto prompt = ids("<|im_start|>user\nSay<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THAT(rows.prompts, ElementsAre(prompt));
  EXPECT_EQ(rows.sequences[0].tokens, prompt + ids("it") + Ids{kEos});
  EXPECT_EQ(rows.sequences[0].num_targets, std::ssize(ids("it")) + 1);
}

TEST_F(Rows, WithoutGenerationThereAreNoPrompts) {
  const auto rows = encode_rows(base_, answers("Say ", "it"), {.generates = false});
  EXPECT_THAT(rows.prompts, IsEmpty());
  EXPECT_EQ(rows.sequences[0].tokens, ids("Say it") + Ids{kEos});
  // No answer takes room: what would be cut with one is whole.
  const auto source = letters(220);
  EXPECT_EQ(encode_rows(base_, answers(source, "J"), {.generates = false}).num_cut, 0);
  EXPECT_EQ(encode_rows(base_, answers(source, "J"), {.max_new_tokens = 64}).num_cut, 1);
}

TEST_F(Rows, QuestionsAreCutAtTheirLeft) {
  const std::string target = " Q";
  const auto fits = letters(kContext + 1 - std::ssize(ids(target)));  // all but the last token enter the model
  ASSERT_EQ(std::ssize(ids(fits + target)), kContext + 1);
  EXPECT_EQ(encode_rows(base_, choices({question_of({fits}, {target})}), {}).num_cut, 0);
  const auto longer = "X" + letters(300);
  const auto rows = encode_rows(base_, choices({question_of({longer, longer, "Z"}, {target, " J", target})}), {});
  EXPECT_EQ(rows.num_cut, 1) << "rows are counted, not choices";
  EXPECT_EQ(rows.sequences[0].tokens, last(ids(longer + target), kContext + 1));
  EXPECT_EQ(rows.sequences[1].tokens, last(ids(longer + " J"), kContext + 1));
  EXPECT_EQ(rows.sequences[2].tokens, ids("Z" + target));
  EXPECT_EQ(rows.sequences[0].num_targets, std::ssize(ids(target)));
  const auto two =
      encode_rows(base_, choices({question_of({longer, "Z"}, {target, " J"}), question_of({"Z", longer}, {target, " J"})}), {});
  EXPECT_EQ(two.num_cut, 2) << "whichever choice is too long";
}

TEST_F(Rows, BosStaysWhenRowsAreCut) {
  begin_with_bos();
  const auto longer = letters(300);
  const auto rows = encode_rows(base_, choices({question_of({longer}, {" Q"})}), {});
  EXPECT_EQ(rows.sequences[0].tokens, Ids{kBos} + last(ids(longer + " Q"), kContext));
  EXPECT_EQ(rows.sequences[0].num_targets, std::ssize(ids(" Q")));
  const auto paper = encode_rows(base_, choices({question_of({longer}, {" Q"})}), {.scoring = ChoiceScoring::kPaper});
  EXPECT_EQ(paper.sequences[0].tokens, Ids{kBos} + last(ids(longer + " Q"), kContext - 1) + Ids{kEos});
  const auto asked = encode_rows(base_, answers(longer, "J"), {.max_new_tokens = 56});
  EXPECT_THAT(asked.prompts, ElementsAre(Ids{kBos} + last(ids(longer), 199)));
  EXPECT_EQ(asked.sequences[0].tokens, Ids{kBos} + last(ids(longer + " J"), 198) + Ids{kEos});
  EXPECT_EQ(asked.sequences[0].num_targets, std::ssize(ids(" J")) + 1);
  EXPECT_EQ(asked.num_cut, 1) << "a row, of which reference and prompt are cut";
}

TEST_F(Rows, AConversationThatIsCutKeepsItsEnd) {
  chat();
  const auto longer = letters(300);
  const auto whole = ids("<|im_start|>user\n" + longer + "<|im_end|>\n<|im_start|>assistant\n");
  const auto rows = encode_rows(base_, answers(longer, "it"), {.max_new_tokens = 56});
  EXPECT_THAT(rows.prompts, ElementsAre(last(whole, 200)));
  EXPECT_EQ(rows.sequences[0].tokens, last(whole + ids("it") + Ids{kEos}, 200));
  EXPECT_EQ(rows.num_cut, 1);
}

TEST_F(Rows, AMaximumOfTokensHoldsForPromptsAndReferences) {
  const auto rows = encode_rows(base_, answers(letters(50), "J"), {.max_new_tokens = 4, .max_length = 20});
  EXPECT_THAT(rows.prompts, ElementsAre(last(ids(letters(50)), 20)));
  EXPECT_EQ(rows.sequences[0].tokens, last(ids(letters(50) + " J") + Ids{kEos}, 20));
  EXPECT_EQ(encode_rows(base_, answers(letters(20), "J"), {.max_new_tokens = 4, .max_length = 30}).num_cut, 0);
}

TEST_F(Rows, ATargetThatIsTooLongIsTold) {
  const auto target = letters(270);
  const auto size = std::ssize(ids(" " + target));
  EXPECT_ERROR(encode_rows(base_, choices({question_of({"Z"}, {" " + target})}), {}), ErrorKind::kUsage,
               format("quiz:1 (row 'q'): the target alone has {} tokens; the model's context is 256", size));
  EXPECT_ERROR(encode_rows(base_, answers("Z", target), {.max_new_tokens = 56}), ErrorKind::kUsage,
               format("ask:1 (row '1'): the target alone has {} tokens; 200 are left to prompt and target", size + 1));
  EXPECT_ERROR(encode_rows(base_, answers("Z", "J"), {.max_new_tokens = 256}), ErrorKind::kUsage,
               "an answer of 256 tokens leaves no room for a prompt in the model's context of 256");
}

TEST_F(Rows, TheLengthOfAnswersIsTheTasksOrTheRuns) {
  auto task = answers("Z", "J");
  EXPECT_EQ(answer_length(task, {.max_new_tokens = 12}), 12);
  task.answers.max_new_tokens = 7;
  EXPECT_EQ(answer_length(task, {.max_new_tokens = 12}), 7);
  task.examples[0].source = letters(300);
  EXPECT_EQ(std::ssize(encode_rows(base_, task, {.max_new_tokens = 100}).prompts.at(0)), kContext - 7);
}

TEST_F(Rows, TheFingerprintIsOfAllTokens) {
  std::set<std::string> seen;
  const auto is_new = [&](const tasks::EvalTask& task, const RowOptions& options = {}) {
    return seen.insert(encode_rows(base_, task, options).fingerprint).second;
  };
  const auto question = question_of({"Where?", "Where?"}, {" here", " far"});
  EXPECT_TRUE(is_new(choices({question})));
  EXPECT_FALSE(is_new(choices({question})));
  EXPECT_TRUE(is_new(choices({question, question})));
  EXPECT_TRUE(is_new(choices({question_of({"there?", "Where?"}, {" here", " far"})})));
  EXPECT_TRUE(is_new(choices({question_of({"Where?", "Where?"}, {" here", " fat"})})));
  EXPECT_TRUE(is_new(choices({question_of({"Where?", "Where?"}, {" far", " here"})}))) << "the order";
  EXPECT_TRUE(is_new(choices({question_of({"QX"}, {"ZJ"})})));
  EXPECT_TRUE(is_new(choices({question_of({"QXZ"}, {"J"})}))) << "the same tokens, with fewer targets";
  EXPECT_TRUE(is_new(choices({question}), {.scoring = ChoiceScoring::kPaper}));
  EXPECT_TRUE(is_new(answers("Say", "it")));
  EXPECT_TRUE(is_new(answers("Say", "it"), {.generates = false}));
  EXPECT_TRUE(is_new(answers("say", "it")));
  EXPECT_TRUE(is_new(answers("Say", "me")));
}

}  // namespace
}  // namespace quiver::recipes
