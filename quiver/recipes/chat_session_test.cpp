#include "quiver/recipes/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

class ChatSessionTest : public ::testing::Test {
 protected:
  static methods::BaseModel chat_base() {
    auto base = methods::load_base("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
    base.format.chat = text::load_chat_template("tests/golden/chat", base.tokenizer);
    return base;
  }
  ChatSession session(std::int64_t max_new_tokens) { return {base_, {}, {.max_new_tokens = max_new_tokens}, progress_}; }
  static bool go_on(std::string_view) { return true; }

  methods::BaseModel base_ = chat_base();
  NoProgress progress_;
};

TEST_F(ChatSessionTest, AnswersWhatGenerationAnswers) {
  auto session = this->session(12);
  const auto first = session.answer("read twice", go_on, progress_);
  const auto second = session.answer("text", go_on, progress_);
  const std::vector<methods::Prompt> prompts = {
      data::encode_messages(base_.tokenizer, base_.format, {{"user", "read twice"}, {"assistant", first.text}, {"user", "text"}}, "")};
  const auto expected =
      model::generate(base_.lm, prompts, {.max_new_tokens = 12, .stop_ids = data::stop_ids(base_.tokenizer, base_.format)});
  EXPECT_EQ(second.text, base_.tokenizer.decode(expected[0], /*skip_special=*/true));
  EXPECT_EQ(session.messages().size(), 4u);
  session.reset();
  EXPECT_EQ(session.answer("read twice", go_on, progress_).text, first.text);
}

TEST_F(ChatSessionTest, KeepsWhatWasSaidWhenItIsStopped) {
  auto session = this->session(40);
  const auto whole = session.answer("read", go_on, progress_);
  session.reset();
  const auto part = session.answer(
      "read", [](std::string_view) { return false; }, progress_);
  EXPECT_TRUE(part.was_stopped);
  EXPECT_LT(part.num_tokens, whole.num_tokens);
  EXPECT_TRUE(whole.text.starts_with(part.text));
  EXPECT_EQ(session.messages().back().content, part.text);
}

TEST_F(ChatSessionTest, ForgetsTheOldestWhereTheContextEnds) {
  auto session = this->session(20);
  const std::string message(60, 'x');
  std::int64_t forgotten = 0;
  for (int i = 0; i < 8; ++i) forgotten += session.answer(message, go_on, progress_).num_forgotten;
  EXPECT_GT(forgotten, 0);
  EXPECT_EQ(static_cast<std::int64_t>(session.messages().size()), 16 - forgotten);
  const auto before = session.messages().size();
  EXPECT_THAT(testing::message_of(ErrorKind::kUsage, [&] { session.answer(std::string(4000, 'x'), go_on, progress_); }),
              ::testing::HasSubstr("the model's context is 256, 20 of them for the answer"));
  EXPECT_EQ(session.messages().size(), before);
  EXPECT_THAT(testing::message_of(ErrorKind::kUsage, [&] { session.set_method({.name = "mean"}, progress_); }),
              ::testing::HasSubstr("start with `library`"));
}

TEST_F(ChatSessionTest, RefusesABaseWithoutATemplate) {
  base_.format.chat.reset();
  EXPECT_THAT(testing::message_of(ErrorKind::kUsage, [&] { session(4); }), ::testing::HasSubstr("has no chat template"));
}

}  // namespace
}  // namespace quiver::recipes
