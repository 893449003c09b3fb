#include "quiver/api/tokenize.h"

#include "quiver/api/test_support.h"

namespace quiver::api::tokenize_test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const text::Tokenizer& tokenizer() {
  static const auto loaded = golden_tokenizer("llama3");
  return loaded;
}

const RequestLimits kLimits = {.vocab_size = tokenizer().vocab_size(), .context_length = 64};

json tokenized(const std::string& body, const text::ChatTemplate* chat_template = nullptr) {
  return json::parse(tokenize_answer(json::parse(body), tokenizer(), chat_template, kLimits));
}

std::string refusal(const std::string& body, const text::ChatTemplate* chat_template = nullptr) {
  return refusal_of([&] { tokenized(body, chat_template); });
}

TEST(Tokenize, AnswersAsVllmDoes) {
  const auto ids = tokenizer().encode("Hello world");
  EXPECT_EQ(tokenized(R"({"prompt": "Hello world", "add_special_tokens": false, "model": "m"})"),
            json({{"count", ids.size()}, {"max_model_len", 64}, {"tokens", ids}, {"token_strs", nullptr}}));
  EXPECT_EQ(tokenized(R"({"prompt": "Hello world"})").at("tokens"), tokenizer().encode("Hello world", {.add_special_tokens = true}));
  EXPECT_EQ(tokenized(R"({"prompt": "", "add_special_tokens": false})").at("tokens"), json::array());
  const auto spelled = tokenized(R"({"prompt": "Hello world", "add_special_tokens": false, "return_token_strs": true})");
  ASSERT_EQ(spelled.at("token_strs").size(), ids.size());
  EXPECT_EQ(spelled.at("token_strs").at(0), *tokenizer().token(ids[0]));
}

TEST(Tokenize, RendersMessages) {
  const text::ChatTemplate chat_template("{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
                                         "test", tokenizer());
  const std::string messages = R"({"messages": [{"role": "user", "content": "hi"}])";
  EXPECT_EQ(tokenized(messages + "}", &chat_template).at("tokens"), tokenizer().encode("<hi>A:"));
  EXPECT_EQ(tokenized(messages + R"(, "add_generation_prompt": false})", &chat_template).at("tokens"), tokenizer().encode("<hi>"));
  EXPECT_THAT(refusal(messages + "}"), StartsWith("400 no_chat_template messages: "));
}

TEST(Tokenize, RefusesWhatIsWrong) {
  EXPECT_THAT(refusal("{}"), StartsWith("400 - prompt: 'prompt' is missing"));
  EXPECT_THAT(refusal(R"({"prompt": null})"), StartsWith("400 - prompt: 'prompt' is missing"));
  EXPECT_THAT(refusal(R"({"prompt": ["a"]})"), StartsWith("400 - prompt: 'prompt' is an array of 1 value; expected a string"));
  EXPECT_THAT(refusal(R"({"prompt": "a", "messages": []})"), StartsWith("400 - prompt: 'prompt' and 'messages' are both given"));
  EXPECT_THAT(refusal(R"({"messages": []})"), StartsWith("400 - messages: "));
  EXPECT_THAT(refusal(R"({"prompt": "a", "add_special_tokens": 1})"), StartsWith("400 - add_special_tokens: "));
}

TEST(Detokenize, GivesTheTextWithSpecialTokens) {
  const auto ids = tokenizer().encode("Hello world");
  EXPECT_EQ(json::parse(detokenize_answer({{"tokens", ids}, {"model", "m"}}, tokenizer(), kLimits)), json({{"prompt", "Hello world"}}));
  EXPECT_EQ(json::parse(detokenize_answer({{"tokens", json::array()}}, tokenizer(), kLimits)), json({{"prompt", ""}}));
  std::int32_t special = 0;
  while (!tokenizer().is_special(special)) ++special;
  EXPECT_EQ(json::parse(detokenize_answer({{"tokens", {special}}}, tokenizer(), kLimits)), json({{"prompt", *tokenizer().token(special)}}));
  const auto wrong = [](const json& body) { return refusal_of([&] { detokenize_answer(body, tokenizer(), kLimits); }); };
  EXPECT_THAT(wrong(json::object()), StartsWith("400 - tokens: 'tokens' is missing"));
  EXPECT_THAT(wrong({{"tokens", {-1}}}), StartsWith("400 - tokens: 'tokens' is the number -1"));
  EXPECT_THAT(wrong({{"tokens", {1.5}}}), StartsWith("400 - tokens: "));
  EXPECT_THAT(wrong({{"tokens", {kLimits.vocab_size}}}), StartsWith("400 - tokens: "));
}

TEST(TokenizerInfo, NamesWhatLmEvalReads) {
  const auto with_ids = tokenizer().with_special_ids(5, {7, 6}, {});
  const text::ChatTemplate chat_template("{{ messages[0]['content'] }}\n", "test", with_ids);
  EXPECT_EQ(json::parse(tokenizer_info(with_ids, &chat_template, kLimits)), json({{"tokenizer_class", "PreTrainedTokenizerFast"},
                                                                                  {"model_max_length", 64},
                                                                                  {"vocab_size", tokenizer().vocab_size()},
                                                                                  {"bos_token", *tokenizer().token(5)},
                                                                                  {"eos_token", *tokenizer().token(7)},
                                                                                  {"pad_token", nullptr},
                                                                                  {"chat_template", "{{ messages[0]['content'] }}\n"}}));
  EXPECT_EQ(json::parse(tokenizer_info(with_ids, nullptr, kLimits)).at("chat_template"), nullptr);
}

TEST(LoadAdapter, TakesPlainNames) {
  const auto request = parse_load_adapter({{"lora_name", "a.B_c:+-9"}, {"lora_path", "/x"}, {"load_inplace", true}, {"odd", 1}});
  EXPECT_EQ(request.name, "a.B_c:+-9");
  EXPECT_EQ(request.path, "/x");
  EXPECT_TRUE(request.replaces);
  EXPECT_FALSE(parse_load_adapter({{"lora_name", "a"}, {"lora_path", "/x"}}).replaces);
  const auto wrong = [](const json& body) { return refusal_of([&] { parse_load_adapter(body); }); };
  for (const char* name : {"", "a/b", "a b", "a,b", "a=b", "\u00e9", "a\n"}) {
    EXPECT_THAT(wrong({{"lora_name", name}, {"lora_path", "/x"}}), StartsWith("400 - lora_name: 'lora_name' is '")) << name;
  }
  EXPECT_THAT(wrong({{"lora_name", std::string(129, 'a')}, {"lora_path", "/x"}}), StartsWith("400 - lora_name: "));
  EXPECT_THAT(wrong({{"lora_path", "/x"}}), StartsWith("400 - lora_name: 'lora_name' is missing"));
  EXPECT_THAT(wrong({{"lora_name", 3}, {"lora_path", "/x"}}), StartsWith("400 - lora_name: 'lora_name' is the number 3"));
  EXPECT_THAT(wrong({{"lora_name", "a"}}), StartsWith("400 - lora_path: "));
  EXPECT_THAT(wrong({{"lora_name", "a"}, {"lora_path", std::string("/x\0y", 4)}}), StartsWith("400 - lora_path: "));
  EXPECT_THAT(wrong({{"lora_name", "a"}, {"lora_path", "/x"}, {"load_inplace", 1}}), StartsWith("400 - load_inplace: "));
  EXPECT_THAT(refusal_of([] {
                parse_load_adapter({{"lora_name", "a"}, {"lora_path", "/x"}, {"odd", 1}}, UnknownFields::kRefuse);
              }),
              HasSubstr("unrecognized request argument supplied: odd"));
}

TEST(UnloadAdapter, TakesPlainNames) {
  EXPECT_EQ(parse_unload_adapter({{"lora_name", "a"}}).name, "a");
  EXPECT_FALSE(parse_unload_adapter({{"lora_name", "a"}}).waits);
  EXPECT_TRUE(parse_unload_adapter({{"lora_name", "a"}, {"wait", true}, {"lora_int_id", 3}}).waits);
  EXPECT_THAT(refusal_of([] { parse_unload_adapter({{"lora_name", "../a"}}); }), StartsWith("400 - lora_name: "));
}

}  // namespace
}  // namespace quiver::api::tokenize_test
