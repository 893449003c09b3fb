// Tokenizers in GGUF metadata, written byte by byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"
#include "quiver/text/tokenizer.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

/// The metadata of a GGUF file without tensors.
class GgufWriter {
 public:
  GgufWriter& add(const std::string& key, const std::string& value) {
    begin(key, 8);
    put_string(value);
    return *this;
  }
  GgufWriter& add(const std::string& key, std::uint32_t value) {
    begin(key, 4);
    put(value);
    return *this;
  }
  GgufWriter& add_flag(const std::string& key, bool value) {
    begin(key, 7);
    put(static_cast<std::uint8_t>(value));
    return *this;
  }
  GgufWriter& add(const std::string& key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const std::string& value : values) put_string(value);
    return *this;
  }
  GgufWriter& add(const std::string& key, const std::vector<std::int32_t>& values) {
    begin_array(key, 5, values.size());
    for (const std::int32_t value : values) put(value);
    return *this;
  }
  GgufWriter& add(const std::string& key, const std::vector<float>& values) {
    begin_array(key, 6, values.size());
    for (const float value : values) put(value);
    return *this;
  }
  Tokenizer read() const {
    GgufWriter file;
    file.bytes_ = "GGUF";
    file.put(std::uint32_t{3});
    file.put(std::uint64_t{0});
    file.put(count_);
    file.bytes_ += bytes_;
    return Tokenizer::from_gguf(io::GgufView::parse(std::as_bytes(std::span(file.bytes_)), "test.gguf"));
  }

 private:
  template <typename T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_string(const std::string& text) {
    put(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  void begin(const std::string& key, std::uint32_t type) {
    ++count_;
    put_string(key);
    put(type);
  }
  void begin_array(const std::string& key, std::uint32_t type, std::size_t size) {
    begin(key, 9);
    put(type);
    put(static_cast<std::uint64_t>(size));
  }

  std::string bytes_;
  std::uint64_t count_ = 0;
};

/// Bytes 0 to 255; then "ab", a control token, a user-defined one, and "12". `pre` empty: the file has no such key.
GgufWriter tiny(const std::string& model, const std::string& pre) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(byte_spelling(static_cast<std::uint8_t>(byte)));
  for (const char* token : {"ab", "<|end|>", "<tool>", "12"}) tokens.emplace_back(token);
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[257] = 3;
  types[258] = 4;
  GgufWriter writer;
  writer.add("tokenizer.ggml.model", model).add("tokenizer.ggml.tokens", tokens);
  if (!pre.empty()) writer.add("tokenizer.ggml.pre", pre);
  writer.add("tokenizer.ggml.token_type", types).add("tokenizer.ggml.merges", std::vector<std::string>{"a b", "1 2"});
  return writer.add("tokenizer.ggml.eos_token_id", std::uint32_t{257});
}

void expect_error(ErrorKind kind, const std::string& part, const GgufWriter& writer) { EXPECT_ERROR(writer.read(), kind, part); }

TEST(GgufTokenizer, ReadsTokensMergesTypesAndSpecialIds) {
  const Tokenizer tokenizer = tiny("gpt2", "gpt-2").read();
  EXPECT_EQ(tokenizer.vocab_size(), 260);
  EXPECT_THAT(tokenizer.encode("ab<|end|><tool>"), ElementsAre(256, 257, 258));
  EXPECT_TRUE(tokenizer.is_special(257));
  EXPECT_FALSE(tokenizer.is_special(258));
  EXPECT_EQ(tokenizer.eos_id(), 257);
  EXPECT_EQ(tokenizer.bos_id(), std::nullopt);
}

TEST(GgufTokenizer, CutsTextAsThePreTokenizerOfThatNameDoes) {
  const auto encode = [](const char* pre, std::string_view text) { return tiny("gpt2", pre).read().encode(text); };
  EXPECT_THAT(encode("gpt-2", "12"), ElementsAre(259));
  EXPECT_THAT(encode("smollm", "12"), ElementsAre('1', '2'));  // digits one by one
  EXPECT_THAT(encode("qwen2", "12"), ElementsAre('1', '2'));
  EXPECT_THAT(encode("llama-bpe", "3412"), ElementsAre('3', '4', '1', '2'));  // 341 | 2
  EXPECT_THAT(encode("llama-bpe", "12"), ElementsAre(259));
  EXPECT_THAT(encode("default", "3412"), ElementsAre('3', '4', '1', '2'));
  EXPECT_EQ(encode("qwen2", "e\xCC\x81"), (Ids{0xC3, 0xA9}));  // NFC
  EXPECT_EQ(encode("smollm", "e\xCC\x81"), (Ids{'e', 0xCC, 0x81}));
}

/// The pieces that the pre-tokenizer of a name makes of a text, each in its own spelling: the tiny vocabulary merges nothing of these.
std::string pieces(const char* pre, const std::string& text) {
  GgufWriter writer;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(byte_spelling(static_cast<std::uint8_t>(byte)));
  // Any two of these letters and signs merge, in any order: what a piece holds becomes one token.
  std::vector<std::string> merges;
  std::vector<std::string> last{"a", "B", "1", "'", "/"};
  const auto first = last;
  for (int length = 2; length <= 4; ++length) {
    std::vector<std::string> longer;
    for (const std::string& head : last) {
      for (const std::string& tail : first) {
        merges.push_back(head + " " + tail);
        longer.push_back(head + tail);
      }
    }
    tokens.insert(tokens.end(), longer.begin(), longer.end());
    last = std::move(longer);
  }
  writer.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.tokens", tokens).add("tokenizer.ggml.pre", pre);
  writer.add("tokenizer.ggml.merges", merges);
  const auto tokenizer = writer.read();
  std::string out;
  for (const auto id : tokenizer.encode(text)) out += (out.empty() ? "" : "|") + tokenizer.token(id).value();
  return out;
}

TEST(GgufTokenizer, CutsCasesAndDigitsByTheNamesOfTheModels) {
  for (const char* pre : {"gpt-2", "phi-2", "mpt", "olmo"}) EXPECT_EQ(pieces(pre, "aB111"), "aB|111") << pre;
  for (const char* pre : {"llama-bpe", "dbrx", "smaug-bpe"}) EXPECT_EQ(pieces(pre, "aB1111"), "aB|111|1") << pre;
  for (const char* pre : {"qwen2", "stablelm2", "deepseek-r1-qwen"}) EXPECT_EQ(pieces(pre, "aB11"), "aB|1|1") << pre;
  for (const char* pre : {"smollm", "starcoder", "refact", "command-r"}) EXPECT_EQ(pieces(pre, "aB11"), "aB|1|1") << pre;
  EXPECT_EQ(pieces("gpt-4o", "aBa1111"), "a|Ba|111|1");  // a word ends before a capital
  EXPECT_EQ(pieces("tekken", "aBa11"), "a|Ba|1|1");
  EXPECT_EQ(pieces("gpt-4o", "a's"), "a'|s");  // one piece; the letter s is in no merge
  EXPECT_EQ(pieces("tekken", "a's"), "a|'|s");
  EXPECT_EQ(pieces("gpt-4o", "''/\n"), "''/|Ċ");  // a line break belongs to the signs before it
}

TEST(GgufTokenizer, TakesATokenAsAWholeWhereTheNameSaysSo) {
  const auto encode = [](const char* pre) {
    GgufWriter writer;
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(byte_spelling(static_cast<std::uint8_t>(byte)));
    tokens.emplace_back("abc");  // which no merge makes
    writer.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.tokens", tokens).add("tokenizer.ggml.pre", pre);
    writer.add("tokenizer.ggml.merges", std::vector<std::string>{}).add("tokenizer.ggml.bos_token_id", std::uint32_t{7});
    return writer.read().encode("abc", {.add_special_tokens = true});
  };
  EXPECT_THAT(encode("llama-bpe"), ElementsAre(7, 256));  // and BOS, though the file does not ask for it
  EXPECT_THAT(encode("tekken"), ElementsAre(7, 256));
  EXPECT_THAT(encode("dbrx"), ElementsAre('a', 'b', 'c'));
}

TEST(GgufTokenizer, CutsAGptNeoxThatDoesNotSayHowAsGpt2DoesAfterNfc) {
  GgufWriter writer = tiny("gpt2", "");
  writer.add("general.architecture", "gptneox");
  EXPECT_THAT(writer.read().warnings(), ::testing::IsEmpty());
  EXPECT_THAT(writer.read().encode("3412"), ElementsAre('3', '4', 259));  // 'default' parts 341 and 2
  EXPECT_EQ(writer.read().encode("e\xCC\x81"), (Ids{0xC3, 0xA9}));
}

/// <unk>, <s>, </s>; the bytes 0 to 255; "a", "b", "▁", "▁a", "ab", "▁ab"; a placeholder and a control token.
GgufWriter tiny_scored(const std::string& architecture = "llama") {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> types{2, 3, 3};
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
  types.resize(tokens.size(), 6);
  for (const char* token : {"a", "b", "▁", "▁a", "ab", "▁ab", "[PAD]", "<|end|>"}) tokens.emplace_back(token);
  types.resize(tokens.size(), 1);
  types[tokens.size() - 2] = 2;
  types[tokens.size() - 1] = 3;
  std::vector<float> scores(tokens.size(), 0);
  scores[259 + 3] = -2;  // ▁a
  scores[259 + 4] = -1;  // ab
  scores[259 + 5] = -3;  // ▁ab
  GgufWriter writer;
  writer.add("general.architecture", architecture).add("tokenizer.ggml.model", "llama").add("tokenizer.ggml.tokens", tokens);
  return writer.add("tokenizer.ggml.token_type", types).add("tokenizer.ggml.scores", scores);
}

TEST(GgufTokenizer, MergesByScoreAndFallsBackToBytes) {
  const auto tokenizer = tiny_scored().read();
  const std::int32_t a = 259, mark = a + 2, mark_a = a + 3, ab = a + 4, mark_ab = a + 5;
  EXPECT_THAT(tokenizer.encode("ab"), ElementsAre(mark_ab));  // ab before ▁a, then ▁ and ab
  EXPECT_THAT(tokenizer.encode("aab"), ElementsAre(mark_a, ab));
  EXPECT_THAT(tokenizer.encode(" ab"), ElementsAre(mark, mark_ab));
  EXPECT_THAT(tokenizer.encode("é"), ElementsAre(mark, 3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre());
  EXPECT_THAT(tokenizer.encode("a", {.add_special_tokens = true}), ElementsAre(1, mark_a));  // llama.cpp's defaults
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_THAT(tokenizer.encode("a</s>a"), ElementsAre(mark_a, 2, mark_a));
  EXPECT_THAT(tokenizer.encode("a", {.place = TextPlace::kContinued}), ElementsAre(a));
  EXPECT_EQ(tokenizer.decode(Ids{mark_ab, mark, mark_ab}), "ab  ab");
  EXPECT_EQ(tokenizer.decode(Ids{3 + 0xC3, 3 + 0xA9, mark_a}), "é a");
}

TEST(GgufTokenizer, TakesPlaceholdersOfTypeUnknownAsText) {
  const auto tokenizer = tiny_scored().read();
  const std::int32_t pad = 259 + 6;
  EXPECT_THAT(tokenizer.encode("[PAD]"), ::testing::Not(::testing::Contains(pad)));
  EXPECT_THAT(tokenizer.encode("<unk>"), ElementsAre(0));
}

TEST(GgufTokenizer, DropsWhiteSpaceAfterPhi3sTokens) {
  const std::int32_t mark_a = 259 + 3, end = 259 + 7;
  EXPECT_THAT(tiny_scored("phi3").read().encode("<|end|> \n a"), ElementsAre(end, mark_a));
  EXPECT_THAT(tiny_scored("phi3").read().encode("<s> a"), ElementsAre(1, 261, mark_a));
  EXPECT_THAT(tiny_scored("llama").read().encode("<|end|> a"), ElementsAre(end, 261, mark_a));
}

TEST(GgufTokenizer, PutsNoMarkInFrontWhereTheFileSaysSo) {
  GgufWriter writer = tiny_scored();
  writer.add_flag("tokenizer.ggml.add_space_prefix", false).add_flag("tokenizer.ggml.add_bos_token", false);
  const auto tokenizer = writer.read();
  EXPECT_THAT(tokenizer.encode("ab", {.add_special_tokens = true}), ElementsAre(259 + 4));
  EXPECT_EQ(tokenizer.decode(Ids{259 + 3}), " a");
}

TEST(GgufTokenizer, RefusesScoresThatAreMissingOrNoNumbers) {
  GgufWriter none;
  none.add("tokenizer.ggml.model", "llama").add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  expect_error(ErrorKind::kBadFormat, "2 tokens, but no scores", none);
  GgufWriter few = none;
  few.add("tokenizer.ggml.scores", std::vector<float>{1});
  expect_error(ErrorKind::kBadFormat, "2 tokens, but 1 scores", few);
  GgufWriter nan = none;
  nan.add("tokenizer.ggml.scores", std::vector<float>{1, std::nanf("")});
  expect_error(ErrorKind::kBadFormat, "the score of token 1 is not a number", nan);
  GgufWriter far_unknown = none;
  far_unknown.add("tokenizer.ggml.scores", std::vector<float>{1, 1}).add("tokenizer.ggml.unknown_token_id", std::uint32_t{2});
  expect_error(ErrorKind::kMismatch, "the unknown token has the id 2, outside the vocabulary of 2 ids", far_unknown);
  GgufWriter long_token;
  long_token.add("tokenizer.ggml.model", "llama").add("tokenizer.ggml.tokens", std::vector<std::string>{"a", std::string(600, 'a')});
  long_token.add("tokenizer.ggml.scores", std::vector<float>{1, 1});
  expect_error(ErrorKind::kUnsupported, "has 600 bytes; scores of tokens up to 512 are implemented", long_token);
}

TEST(GgufTokenizer, ReadsMarkedMergesAndRunsOfLineBreaks) {
  std::vector<std::string> tokens{"<unk>", "<bos>", "a", "▁", "\n", "\n\n", "▁a", "<0xC3>", "<0xA9>"};
  GgufWriter writer;
  writer.add("tokenizer.ggml.model", "gemma4").add("tokenizer.ggml.tokens", tokens);
  writer.add("tokenizer.ggml.token_type", std::vector<std::int32_t>{2, 3, 1, 1, 1, 1, 1, 6, 6});
  writer.add("tokenizer.ggml.merges", std::vector<std::string>{"▁ a"}).add("tokenizer.ggml.bos_token_id", std::uint32_t{1});
  writer.add("tokenizer.ggml.unknown_token_id", std::uint32_t{0});
  const auto tokenizer = writer.read();
  EXPECT_THAT(tokenizer.encode("a a\n\n\né", {.add_special_tokens = true}), ElementsAre(1, 2, 6, 5, 4, 7, 8));
  EXPECT_THAT(tokenizer.encode("日"), ElementsAre(0));
  EXPECT_EQ(tokenizer.decode(Ids{6, 2, 5}), " aa\n\n");
}

TEST(GgufTokenizer, WarnsOfAFileThatDoesNotNameItsPreTokenizer) {
  const auto unnamed = tiny("gpt2", "").read(), named = tiny("gpt2", "default").read();
  EXPECT_THAT(unnamed.warnings(), ElementsAre(HasSubstr("'test.gguf' has no tokenizer.ggml.pre: its text is cut as by 'default'")));
  EXPECT_THAT(unnamed.with_special_ids(0, {}, 0).warnings(), ::testing::SizeIs(1));
  EXPECT_THAT(named.warnings(), ::testing::IsEmpty());
  EXPECT_EQ(unnamed.encode("ab 3412, x"), named.encode("ab 3412, x"));
}

TEST(GgufTokenizer, AddsTheTokensThatTheFileAsksFor) {
  GgufWriter writer = tiny("gpt2", "gpt-2");
  writer.add("tokenizer.ggml.bos_token_id", std::uint32_t{258}).add_flag("tokenizer.ggml.add_bos_token", true);
  EXPECT_THAT(writer.read().encode("ab", {.add_special_tokens = true}), ElementsAre(258, 256));
  EXPECT_THAT(writer.read().encode("ab"), ElementsAre(256));
}

TEST(GgufTokenizer, RefusesOtherKindsByName) {
  for (const std::string model : {"bert", "t5", "rwkv"}) {
    expect_error(ErrorKind::kUnsupported, "tokenizer.ggml.model '" + model + "' is not implemented", tiny(model, "gpt-2"));
  }
  expect_error(ErrorKind::kUnsupported, "tokenizer.ggml.pre 'falcon' is not implemented; Quiver knows default, gpt-2, ",
               tiny("gpt2", "falcon"));
  GgufWriter far_id = tiny("gpt2", "gpt-2");
  far_id.add("tokenizer.ggml.bos_token_id", std::uint32_t{260});
  expect_error(ErrorKind::kMismatch, "the bos token has the id 260, outside the vocabulary of 260 ids", far_id);
  GgufWriter few;
  few.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  few.add("tokenizer.ggml.token_type", std::vector<std::int32_t>{1});
  expect_error(ErrorKind::kBadFormat, "2 tokens, but 1 token types", few);
  GgufWriter merge;
  merge.add("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  merge.add("tokenizer.ggml.merges", std::vector<std::string>{"a"});
  expect_error(ErrorKind::kBadFormat, "merge 0, 'a', is not two tokens", merge);
}

TEST(GgufTokenizer, GivesTheIdsOfTheFileItWasMadeFrom) {
  const Tokenizer tokenizer = load_tokenizer("tests/golden/model/llama-mixed.gguf");
  const auto golden = io::read_json_file("tests/golden/model/tokenizer.golden.json");
  ASSERT_GE(golden.at("cases").size(), 5U);
  for (const auto& row : golden.at("cases")) {
    SCOPED_TRACE(row.at("text").get<std::string>());
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>()), row.at("ids").get<Ids>());
    EXPECT_EQ(tokenizer.decode(row.at("ids").get<Ids>()), row.at("decoded").get<std::string>());
  }
}

}  // namespace
}  // namespace quiver::text
