// Tokenizers in GGUF metadata, written byte by byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  expect_error(ErrorKind::kUnsupported, "tokenizer.ggml.model 'llama' is not implemented", tiny("llama", "gpt-2"));
  expect_error(ErrorKind::kUnsupported, "tokenizer.ggml.pre 'tekken' is not implemented", tiny("gpt2", "tekken"));
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
