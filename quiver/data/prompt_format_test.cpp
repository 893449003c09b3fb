#include "quiver/data/prompt_format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/data/encode.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::data {
namespace {

using testing::error_of;
using Ids = std::vector<std::int32_t>;

constexpr const char* kFolder = "tests/golden/chat";

class ChatFormatTest : public ::testing::Test {
 protected:
  PromptFormat chat_of(const std::string& source) const { return {.chat = text::ChatTemplate(source, "test", tokenizer_)}; }
  /// Which tokens of a sequence are targets.
  static std::vector<int> mask_of(const forest::Sequence& sequence) {
    std::vector<int> mask(sequence.tokens.size(), 0);
    for (auto i = mask.size() - static_cast<std::size_t>(sequence.num_targets); i < mask.size(); ++i) mask[i] = 1;
    for (const auto& gap : sequence.gaps) {
      for (auto i = gap.begin; i < gap.end; ++i) mask[static_cast<std::size_t>(i)] = 0;
    }
    return mask;
  }
  text::Tokenizer tokenizer_ = text::load_tokenizer(kFolder);
  PromptFormat format_{.chat = text::load_chat_template(kFolder, tokenizer_)};
};

TEST_F(ChatFormatTest, TokensAndTargetsAreThoseOfTransformers) {
  const auto golden = io::read_json_file(std::string(kFolder) + "/cases.json");
  ASSERT_EQ(golden.at("cases").size(), 6u);
  for (const auto& item : golden.at("cases")) {
    SCOPED_TRACE(item.at("text").get<std::string>());
    const auto messages = text::parse_messages(item.at("messages"), "case");
    EXPECT_EQ(format_.chat->render(messages, false), item.at("text").get<std::string>());
    const Example example{.source = "", .targets = {messages.back().content}, .messages = messages};
    auto ids = item.at("ids").get<Ids>();
    auto mask = item.at("mask").get<std::vector<int>>();
    const auto sequence = encode_example(tokenizer_, format_, example, 0);
    EXPECT_EQ(encode_prompt(tokenizer_, format_, example, 0), item.at("prompt_ids").get<Ids>());
    while (mask.back() == 0) {  // what the template writes after the last answer is no context of anything
      mask.pop_back();
      ids.pop_back();
    }
    EXPECT_EQ(sequence.tokens, ids);
    EXPECT_EQ(mask_of(sequence), mask);
    auto last = format_;
    last.train_on = TrainOn::kLast;
    const auto of_last = encode_example(tokenizer_, last, example, 0);
    EXPECT_EQ(of_last.tokens, ids);
    EXPECT_TRUE(of_last.gaps.empty());
    EXPECT_EQ(of_last.num_targets, static_cast<std::int64_t>(ids.size() - item.at("prompt_ids").size()));
  }
}

TEST_F(ChatFormatTest, ASourceIsTheUsersMessageAndATargetTheAssistants) {
  const Example row{.source = "a b", .targets = {"c"}};
  const auto sequence = encode_example(tokenizer_, format_, row, 0);
  const std::string prompt = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(tokenizer_.decode(sequence.tokens), prompt + "c<|im_end|>");
  EXPECT_EQ(encode_prompt(tokenizer_, format_, row, 0), tokenizer_.encode(prompt));
  EXPECT_EQ(sequence.num_targets, static_cast<std::int64_t>(tokenizer_.encode("c").size()) + 1);
  const auto request = encode_request(tokenizer_, format_, "a b", "c", "r.jsonl:1");
  EXPECT_EQ(tokenizer_.decode(request.tokens), prompt + "c");
  EXPECT_EQ(request.num_targets, sequence.num_targets - 1);
}

TEST_F(ChatFormatTest, AChoiceHasTheWhiteSpaceThatEndsThePrompt) {
  const auto choice = encode_choice(tokenizer_, format_, "a b", "c", "r.jsonl:1");
  const auto request = encode_request(tokenizer_, format_, "a b", "c", "r.jsonl:1");
  EXPECT_EQ(choice.tokens, request.tokens);
  EXPECT_EQ(choice.num_targets, request.num_targets + 1) << "the line break behind 'assistant'";
  EXPECT_EQ(choice.name, "r.jsonl:1");
  EXPECT_EQ(encode_choice(tokenizer_, {}, "a", " b", "").tokens, encode_request(tokenizer_, "a", " b").tokens);
  EXPECT_EQ(error_of([&] { encode_choice(tokenizer_, format_, "a", "", "r"); }), "usage: r: the continuation is empty");
}

TEST_F(ChatFormatTest, ASystemMessageStandsInForAMissingOneAlone) {
  format_.system = "Sing";
  const Example row{.source = "a", .targets = {"c"}};
  EXPECT_TRUE(tokenizer_.decode(encode_prompt(tokenizer_, format_, row, 0)).starts_with("<|im_start|>system\nSing<|im_end|>"));
  const Example own{.source = "", .targets = {"c"}, .messages = {{"system", "Dance"}, {"user", "a"}, {"assistant", "c"}}};
  EXPECT_TRUE(tokenizer_.decode(encode_prompt(tokenizer_, format_, own, 0)).starts_with("<|im_start|>system\nDance<|im_end|>"));
}

TEST_F(ChatFormatTest, BareTextIsWhatItWas) {
  const PromptFormat bare;
  const Example row{.source = "a b ", .targets = {"c"}};
  EXPECT_EQ(encode_example(tokenizer_, bare, row, 7).tokens, encode_example(tokenizer_, "a b ", "c", 7).tokens);
  EXPECT_EQ(encode_prompt(tokenizer_, bare, row, 2), encode_prompt(tokenizer_, "a b ", 2));
  EXPECT_EQ(encode_request(tokenizer_, bare, "a", " b", "").tokens, encode_request(tokenizer_, "a", " b").tokens);
  EXPECT_EQ(stop_ids(tokenizer_, bare), Ids(tokenizer_.eos_ids().begin(), tokenizer_.eos_ids().end()));
  EXPECT_EQ(describe(bare), "bare text");
  const Example talk{.targets = {"c"}, .messages = {{"user", "a"}, {"assistant", "c"}}, .where = "t.jsonl:3"};
  EXPECT_EQ(
      error_of([&] { encode_example(tokenizer_, bare, talk, 0); }),
      "usage: t.jsonl:3: the row is a conversation, which bare text cannot hold: use a base with a chat template, without `chat=false`");
}

TEST_F(ChatFormatTest, OneTextIsItselfOrTheUsersMessage) {
  EXPECT_EQ(encode_user_text(tokenizer_, {}, "What is 2 + 2?", "the prompt"), encode_text(tokenizer_, "What is 2 + 2?"));
  const auto ids = encode_user_text(tokenizer_, format_, "What is 2 + 2?", "the prompt");
  EXPECT_EQ(ids, encode_messages(tokenizer_, format_, {{"user", "What is 2 + 2?"}}, "the prompt"));
  EXPECT_GT(ids.size(), encode_text(tokenizer_, "What is 2 + 2?").size());
}

TEST_F(ChatFormatTest, SequencesAndErrorsNameTheirRow) {
  const PromptFormat bare;
  const std::string where = "r.jsonl:4 (set 'r', row 'x')";
  const Example row{.source = "a", .targets = {"b"}, .where = where};
  EXPECT_EQ(encode_example(tokenizer_, bare, row, 0).name, where);
  EXPECT_EQ(encode_example(tokenizer_, format_, row, 0).name, where);
  EXPECT_EQ(encode_request(tokenizer_, bare, "a", " b", where).name, where);
  EXPECT_EQ(encode_request(tokenizer_, format_, "a", "b", where).name, where);
  EXPECT_EQ(error_of([&] { encode_request(tokenizer_, bare, "a", "", where); }), "usage: " + where + ": the continuation is empty");
  EXPECT_EQ(error_of([&] { encode_request(tokenizer_, format_, "a", "", where); }), "usage: " + where + ": the continuation is empty");
  const Example empty{.source = "", .targets = {"b"}, .where = where};
  EXPECT_EQ(error_of([&] { encode_prompt(tokenizer_, bare, empty, 0); }), "usage: " + where + ": the prompt has no tokens; give it text");
  const auto raising = chat_of("{{ raise_exception('no ' + messages[0].content) }}");
  EXPECT_THAT(error_of([&] { encode_request(tokenizer_, raising, "a", "b", where); }), ::testing::HasSubstr(where + ": "));
}

TEST_F(ChatFormatTest, DescribesTemplateAndSystemMessage) {
  EXPECT_EQ(describe(format_), "chat template " + format_.chat->sha256().substr(0, 32));
  format_.system = "Sing";
  EXPECT_TRUE(describe(format_).ends_with(" with system message 'Sing'"));
}

TEST_F(ChatFormatTest, CutsFromTheLeftAndKeepsATokenBeforeTheFirstTarget) {
  const Example talk{.targets = {"f g"}, .messages = {{"user", "a"}, {"assistant", "b c"}, {"user", "d e"}, {"assistant", "f g"}}};
  const auto whole = encode_example(tokenizer_, format_, talk, 0);
  ASSERT_EQ(whole.gaps.size(), 1u);
  const auto size = static_cast<std::int64_t>(whole.tokens.size());
  for (std::int64_t length = 2; length <= size; ++length) {
    SCOPED_TRACE(length);
    const auto cut = encode_example(tokenizer_, format_, talk, length);
    EXPECT_EQ(cut.tokens, Ids(whole.tokens.end() - length, whole.tokens.end()));
    auto expected = mask_of(whole);
    expected.erase(expected.begin(), expected.end() - length);
    expected.front() = 0;
    auto found = mask_of(cut);
    EXPECT_EQ(found.front(), 0);
    EXPECT_EQ(found, expected);
    EXPECT_NO_THROW(forest::build_batch(std::vector<forest::Sequence>{cut}));
  }
}

TEST(ChatFormatOfLlama3, KeepsBosBeforeWhatIsCut) {
  constexpr std::int32_t kBos = 1505;
  const auto tokenizer = text::load_tokenizer("tests/golden/tokenizer/llama3.json").with_special_ids(kBos, {1506}, std::nullopt);
  const PromptFormat format{.chat = text::ChatTemplate("{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                                                       "{% if add_generation_prompt %}assistant: {% endif %}",
                                                       "test", tokenizer)};
  const Example talk{.targets = {"f g"}, .messages = {{"user", "a"}, {"assistant", "b c"}, {"user", "d e"}, {"assistant", "f g"}}};
  const auto whole = encode_example(tokenizer, format, talk, 0);
  const auto prompt = encode_prompt(tokenizer, format, talk, 0);
  ASSERT_EQ(whole.tokens.front(), kBos);
  ASSERT_EQ(prompt.front(), kBos);
  for (std::int64_t length = 2; length <= std::ssize(whole.tokens); ++length) {
    SCOPED_TRACE(length);
    const auto cut = encode_example(tokenizer, format, talk, length);
    Ids expected(whole.tokens.end() - length, whole.tokens.end());
    expected.front() = kBos;
    EXPECT_EQ(cut.tokens, expected);
    EXPECT_EQ(cut.num_targets, std::min(whole.num_targets, length - 1));
    EXPECT_NO_THROW(forest::build_batch(std::vector<forest::Sequence>{cut}));
  }
  Ids expected(prompt.end() - 5, prompt.end());
  expected.front() = kBos;
  EXPECT_EQ(encode_prompt(tokenizer, format, talk, 5), expected);
}

TEST_F(ChatFormatTest, EndsAnAnswerWithEosWhereTheTemplateHasNoTokenForIt) {
  const auto plain =
      chat_of("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}");
  const auto sequence = encode_example(tokenizer_, plain, {.source = "a", .targets = {"b"}}, 0);
  EXPECT_EQ(tokenizer_.decode(sequence.tokens), "user: a\nassistant: b\n<|im_end|>");
  EXPECT_EQ(sequence.tokens.back(), *tokenizer_.eos_id());
}

TEST_F(ChatFormatTest, StopsAtTheTokenThatEndsAMessage) {
  const auto other = chat_of("{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}{% endif %}");
  EXPECT_EQ(stop_ids(tokenizer_, other), (Ids{*tokenizer_.eos_id(), *tokenizer_.token_id("<|endoftext|>")}));
  EXPECT_EQ(stop_ids(tokenizer_, format_), Ids{*tokenizer_.eos_id()});
}

TEST_F(ChatFormatTest, RefusesTemplatesThatCannotBeTrainedOn) {
  const auto thinking = chat_of(
      "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>think{% endif %}");
  const Example row{.source = "a", .targets = {"b"}, .where = "t.jsonl:9"};
  EXPECT_EQ(error_of([&] { encode_example(tokenizer_, thinking, row, 0); }),
            "unsupported: t.jsonl:9: the template in test writes messages[1] otherwise than after its generation prompt; train with "
            "`chat=false`");
  const auto forgetful = chat_of(
      "{% for m in messages %}{% if m.role == 'user' or loop.last %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>{% endif %}");
  const Example talk{
      .targets = {"d"}, .messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}}, .where = "t.jsonl:2"};
  EXPECT_EQ(encode_example(tokenizer_, forgetful, {.source = "a", .targets = {"b"}}, 0).num_targets, 2);
  auto last = forgetful;
  last.train_on = TrainOn::kLast;
  EXPECT_EQ(tokenizer_.decode(encode_example(tokenizer_, last, talk, 0).tokens),
            "<|im_start|>a<|im_end|><|im_start|>c<|im_end|><|im_start|>d<|im_end|>");
  const auto raising = chat_of("{{ raise_exception('no ' + messages[0].content) }}");
  const auto raised = error_of([&] { encode_example(tokenizer_, raising, row, 0); });
  EXPECT_NE(raised.find("t.jsonl:9: "), std::string::npos) << raised;
  EXPECT_NE(raised.find("no a"), std::string::npos) << raised;
}

TEST(ReadRequest, EndsWithTheUser) {
  const auto parsed = [](const char* text) { return read_request(nlohmann::json::parse(text), "r.jsonl:4"); };
  EXPECT_EQ(parsed(R"([{"role":"user","content":"a"}])").size(), 1u);
  EXPECT_EQ(error_of([&] { parsed(R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])"); }),
            "bad format: r.jsonl:4: the messages end with role 'assistant'; expected 'user', whom the model answers");
}

}  // namespace
}  // namespace quiver::data
