// Behaviour and refusals of the tokenizer on vocabularies made on the spot.
#include "quiver/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/io/file.h"
#include "quiver/regex/pattern.h"
#include "quiver/testing/message_of.h"
#include "quiver/text/bpe.h"
#include "quiver/text/oniguruma.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using Ids = std::vector<std::int32_t>;

/// All bytes, ids 0 to 255, and the merges given; each merge adds a token.
json tiny_tokenizer(const std::vector<std::pair<std::string, std::string>>& merges) {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[std::string(byte_spelling(static_cast<std::uint8_t>(byte)))] = byte;
  json list = json::array();
  for (const auto& [left, right] : merges) {
    if (!vocab.contains(left + right)) vocab[left + right] = vocab.size();
    list.push_back(left + " " + right);
  }
  return {{"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

json added(const std::string& content, int id, bool special) {
  return {{"content", content}, {"id", id}, {"special", special}, {"normalized", false}};
}

Tokenizer make(const json& description) { return Tokenizer::from_tokenizer_json(description, "test.json"); }

template <typename F>
void expect_error(ErrorKind kind, const std::string& part, const F& run) {
  EXPECT_ERROR(run(), kind, part);
}

void expect_refused(const json& description, ErrorKind kind, const std::string& part) {
  expect_error(kind, part, [&] { make(description); });
}

TEST(Tokenizer, MergesTheLowestRankFirstAndTheLeftmostOfEquals) {
  const Tokenizer tokenizer = make(tiny_tokenizer({{"b", "c"}, {"a", "b"}, {"a", "a"}}));
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre('a', 256));  // b c before a b
  EXPECT_THAT(tokenizer.encode("aaa"), ElementsAre(258, 'a'));  // the left pair
  EXPECT_THAT(tokenizer.encode("ab c"), ElementsAre(257, ' ', 'c'));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre());
}

/// Algorithm 1 of Sennrich et al. 2016, literally: find the best pair of the whole piece, merge it once, repeat.
Ids merge_slowly(const std::string& piece, const std::vector<std::pair<std::string, std::string>>& merges, const Tokenizer& tokenizer) {
  std::vector<std::string> symbols;
  for (const char c : piece) symbols.emplace_back(byte_spelling(static_cast<std::uint8_t>(c)));
  while (true) {
    std::size_t best_rank = merges.size();
    std::size_t best = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = std::ranges::find(merges, std::pair(symbols[i], symbols[i + 1]));
      const auto rank = static_cast<std::size_t>(found - merges.begin());
      if (rank < best_rank) best_rank = rank, best = i;
    }
    if (best_rank == merges.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) ids.push_back(tokenizer.token_id(symbol).value());
  return ids;
}

TEST(Tokenizer, MergesAsTheDefinitionDoes) {
  RandomStream random(5, "text/merges");
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<std::string> tokens{"a", "b", "c"};
  while (merges.size() < 60) {
    const std::pair merge(tokens[random.below(tokens.size())], tokens[random.below(tokens.size())]);
    if (std::ranges::find(merges, merge) != merges.end() || merge.first.size() + merge.second.size() > 12) continue;
    merges.push_back(merge);
    tokens.push_back(merge.first + merge.second);
  }
  const Tokenizer tokenizer = make(tiny_tokenizer(merges));
  for (int i = 0; i < 300; ++i) {
    std::string piece;
    const std::uint64_t length = random.below(90);
    for (std::uint64_t k = 0; k < length; ++k) piece += "abc"[random.below(3)];
    ASSERT_EQ(tokenizer.encode(piece), merge_slowly(piece, merges, tokenizer)) << piece;
    ASSERT_EQ(tokenizer.encode(piece), merge_slowly(piece, merges, tokenizer)) << piece << ", from the cache";
  }
}

TEST(Tokenizer, EncodesFromSeveralThreadsAtOnce) {
  const Tokenizer tokenizer = make(tiny_tokenizer({{"a", "b"}, {"ab", "ab"}}));
  std::vector<std::thread> threads;
  std::vector<Ids> results(4);
  for (std::size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) results[t] = tokenizer.encode("abab x" + std::to_string(i % 97) + " ab");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : results) EXPECT_EQ(ids, tokenizer.encode("abab x" + std::to_string(1999 % 97) + " ab"));
}

TEST(Tokenizer, ReadsInvalidUtf8AsReplacementCharacters) {
  const Tokenizer tokenizer = make(tiny_tokenizer({}));
  // Python: b"a\xff\xe2\x82b\xed\xa0\x80\xf0\x9f".decode("utf-8", "replace")
  EXPECT_EQ(tokenizer.encode("a\xFF\xE2\x82"
                             "b\xED\xA0\x80\xF0\x9F"),
            tokenizer.encode("a\uFFFD\uFFFDb\uFFFD\uFFFD\uFFFD\uFFFD"));
  EXPECT_EQ(tokenizer.decode(Ids{0xE2, 0x82, 'b'}), "\uFFFDb");
}

TEST(Tokenizer, RecognisesAddedTokensInTheText) {
  json description = tiny_tokenizer({{"a", "b"}});
  description["added_tokens"] = {added("<s>", 257, true), added("<s><s>", 258, false)};
  const Tokenizer tokenizer = make(description);
  EXPECT_THAT(tokenizer.encode("ab<s>ab<s><s>"), ElementsAre(256, 257, 256, 258));
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_TRUE(tokenizer.is_special(257));
  EXPECT_FALSE(tokenizer.is_special(258));
  EXPECT_EQ(tokenizer.token_id("<s>"), 257);
  EXPECT_EQ(tokenizer.token(256), "ab");
  EXPECT_EQ(tokenizer.token(259), std::nullopt);
  EXPECT_EQ(tokenizer.decode(Ids{256, 257, 258, 999, -1}), "ab<s><s><s>");
  EXPECT_EQ(tokenizer.decode(Ids{256, 257, 258}, /*skip_special=*/true), "ab<s><s>");
}

TEST(Tokenizer, RefusesTokensThatTheModelHasNoRowFor) {
  json description = tiny_tokenizer({{"a", "b"}});
  description["added_tokens"] = {added("<s>", 257, true), added("<image>", 258, true)};
  const Tokenizer tokenizer = make(description).with_model_rows(258);
  EXPECT_THAT(tokenizer.encode("ab<s>"), ElementsAre(256, 257));
  expect_error(ErrorKind::kMismatch, "the text has the token '<image>' of id 258, but the model has rows for ids below 258",
               [&] { tokenizer.encode("ab<image>"); });
  EXPECT_EQ(tokenizer.decode(Ids{258}), "<image>");
  expect_error(ErrorKind::kMismatch, "the eos token '<image>' has the id 258, but the model has rows for ids below 258",
               [&] { make(description).with_special_ids(257, {258}, {}).with_model_rows(258); });
}

TEST(Tokenizer, PutsNoSpaceBeforeAContinuation) {
  json description = tiny_tokenizer({});
  description["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(make(description).encode("a"), ElementsAre(' ', 'a'));
  EXPECT_THAT(make(description).encode("a", {.place = TextPlace::kContinued}), ElementsAre('a'));
}

TEST(Tokenizer, BoundsWhatTheNormalizerMakesOfAText) {
  json description = tiny_tokenizer({});
  const json doubled = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  description["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::vector<json>(40, doubled)}};
  expect_error(ErrorKind::kUnsupported, "the normalizer makes", [&] { make(description).encode("aaa"); });
}

TEST(Tokenizer, PutsTheTemplateAroundTheTextOnlyWhenAsked) {
  json description = tiny_tokenizer({});
  description["added_tokens"] = {added("<s>", 256, true)};
  const json begin = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  description["post_processor"] = {
      {"type", "TemplateProcessing"}, {"single", {begin, text, begin}}, {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {256}}}}}}};
  const Tokenizer tokenizer = make(description);
  EXPECT_THAT(tokenizer.encode("x"), ElementsAre('x'));
  EXPECT_THAT(tokenizer.encode("x", {.add_special_tokens = true}), ElementsAre(256, 'x', 256));
  description["post_processor"]["special_tokens"]["<s>"]["ids"] = {300};
  expect_refused(description, ErrorKind::kMismatch, "the post-processor's token has the id 300");
}

TEST(Tokenizer, RefusesWhatItDoesNotImplementByName) {
  const json plain = tiny_tokenizer({});
  const auto with = [&](const char* pointer, const json& value) {
    json changed = plain;
    changed[json::json_pointer(pointer)] = value;
    return changed;
  };
  const auto unsupported = ErrorKind::kUnsupported;
  expect_refused(with("/model/type", "Unigram"), unsupported, "model 'Unigram'");
  json no_bytes = with("/model/byte_fallback", true);
  no_bytes["model"]["vocab"].erase("Ġ");
  expect_refused(no_bytes, unsupported, "byte_fallback for the byte 32, 'Ġ' in the spelling of ByteLevel");
  expect_refused(with("/model/dropout", 0.1), unsupported, "dropout");
  expect_refused(with("/model/end_of_word_suffix", "</w>"), unsupported, "end_of_word_suffix '</w>'");
  expect_refused(with("/normalizer", {{"type", "Precompiled"}}), unsupported, "normalizer 'Precompiled'");
  const json regex = {{"type", "Replace"}, {"pattern", {{"Regex", " +"}}}, {"content", " "}};
  expect_refused(with("/normalizer", regex), unsupported, "a Replace of a regular expression");
  expect_refused(with("/normalizer", {{"type", "Prepend"}, {"prepend", std::string(300, 'a')}}), unsupported, "'prepend' has 300 bytes");
  expect_refused(with("/pre_tokenizer", {{"type", "Whitespace"}}), unsupported, "pre_tokenizer 'Whitespace'");
  const json scheme = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "last"}};
  expect_refused(with("/pre_tokenizer", scheme), unsupported, "prepend_scheme 'last'");
  const json contrary = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"add_prefix_space", false}};
  expect_refused(with("/pre_tokenizer", contrary), ErrorKind::kBadFormat, "add_prefix_space is false, but prepend_scheme 'first'");
  const json fused = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}}};
  expect_refused(with("/decoder", fused), unsupported, "'ByteFallback' after the tokens are joined");
  expect_refused(with("/decoder", {{"type", "Strip"}, {"content", " "}, {"start", 1000}, {"stop", 0}}), unsupported,
                 "a Strip of 1000 and 0");
  expect_refused(with("/decoder", {{"type", "WordPiece"}}), unsupported, "decoder 'WordPiece'");
  expect_refused(with("/decoder", nullptr), unsupported, "decoder null");
  expect_refused(with("/post_processor", {{"type", "BertProcessing"}}), unsupported, "post_processor 'BertProcessing'");
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  expect_refused(with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {plain["pre_tokenizer"], digits}}}), unsupported,
                 "'Digits' after ByteLevel");
}

TEST(Tokenizer, RefusesFilesThatContradictThemselves) {
  const auto bad = ErrorKind::kBadFormat;
  json description = tiny_tokenizer({{"a", "b"}});
  description["model"]["merges"].push_back("a x c");
  expect_refused(description, bad, "merge 1 is neither");
  description["model"]["merges"][1] = json::array({"a", "zz"});
  expect_refused(description, bad, "needs the token 'zz'");
  description["model"]["merges"].erase(1);
  description["model"]["vocab"]["twice"] = 97;
  expect_refused(description, bad, "two tokens have the id 97");
  description["model"]["vocab"]["twice"] = -3;
  expect_refused(description, bad, "has the id -3");
  description["model"]["vocab"]["twice"] = 1 << 30;
  expect_refused(description, bad, "ids are 0 to 16777215");
  description["model"]["vocab"].erase("twice");
  description["model"]["unk_token"] = "<unk>";
  expect_refused(description, bad, "unk_token '<unk>' is not in the vocabulary");
  description["model"].erase("unk_token");
  description["added_tokens"] = {added("<s>", 300, true)};
  expect_refused(description, bad, "added token '<s>' has the id 300, but its place");
  expect_refused(json::array(), bad, "a tokenizer.json is a JSON object, not array");
}

TEST(Tokenizer, RefusesPatternsThatTheEnginesReadDifferently) {
  const auto refuse = [](const std::string& pattern, const std::string& part) {
    expect_error(ErrorKind::kUnsupported, part, [&] { translate_pattern(pattern, "test.json"); });
  };
  refuse(R"(\w+)", R"(the escape '\w' at byte 2)");
  refuse(R"(\bx)", R"(the escape '\b')");
  refuse(R"((a)\1)", R"(the escape '\1')");
  refuse(R"([a&&b])", "'&&'");
  refuse(R"([a[b]])", "a class inside a class");
  refuse(R"([\P{L}])", "a negated property inside a class");
  refuse(R"(a{2}+)", "a quantifier of a quantifier");
  refuse(R"((?i:[a-z]))", "a class inside (?i:...)");
  refuse(R"((?i:ss))", "together with 'ss'");
  refuse(R"(\p{Greek})", "the property 'Greek'");
  refuse("(a", "a group without ')'");
  refuse("a)", "')' without a group");
  refuse("[a", "a class without ']'");
  refuse("(?<n>a)", "a group of an unknown kind");
  expect_error(ErrorKind::kUnsupported, "PCRE2 does not take the pattern", [] { regex::Pattern("(?<=a*)b", "test.json"); });
}

TEST(Tokenizer, SaysSoWhenAPatternBacktracksBeyondAllBounds) {
  std::vector<regex::Match> matches;
  const regex::Pattern pattern(translate_pattern("(x+x+)+[yz]", "test.json"), "test.json");
  expect_error(ErrorKind::kUnsupported, "cannot be matched in a text of 40 bytes at byte 0",
               [&] { pattern.find_all(std::string(40, 'x'), matches); });
}

TEST(StreamDecoder, EmitsWholeCharactersOnly) {
  const Tokenizer tokenizer = make(tiny_tokenizer({}));
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push('a'), "a");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x98), "");
  EXPECT_EQ(decoder.push(0x80), "😀");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('b'), "\uFFFDb");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, GivesWhatDecodeGivesForAnyBytes) {
  const Tokenizer tokenizer = make(tiny_tokenizer({}));
  RandomStream random(9, "text/stream");
  constexpr std::uint8_t kBytes[] = {'a', 0x80, 0xBF, 0xA0, 0x9F, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF, 0x90};
  for (int i = 0; i < 3000; ++i) {
    SCOPED_TRACE(i);
    StreamDecoder decoder(tokenizer);
    Ids ids;
    std::string text;
    const std::uint64_t length = random.below(10);
    for (std::uint64_t k = 0; k < length; ++k) {
      SCOPED_TRACE(k);
      ids.push_back(kBytes[random.below(std::size(kBytes))]);
      text += decoder.push(ids.back());
      ASSERT_TRUE(is_valid_utf8(text));
    }
    text += decoder.finish();
    ASSERT_EQ(json(text), json(tokenizer.decode(ids))) << json(ids);
  }
}

class LoadTokenizer : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) / "quiver_load_tokenizer";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    json description = tiny_tokenizer({});
    description["added_tokens"] = {added("<s>", 256, true), added("</s>", 257, true), added("<turn>", 258, true)};
    write("tokenizer.json", description);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const json& value) { io::write_file_atomic(folder_ / name, value.dump()); }

  std::filesystem::path folder_;
};

TEST_F(LoadTokenizer, TakesSpecialIdsFromTheFilesBesideIt) {
  write("tokenizer_config.json", {{"bos_token", nullptr}, {"eos_token", {{"content", "</s>"}}}, {"pad_token", "</s>"}});
  write("generation_config.json", {{"eos_token_id", {258, 257}}, {"bos_token_id", 256}});
  const Tokenizer tokenizer = load_tokenizer(folder_);
  EXPECT_EQ(tokenizer.bos_id(), 256);
  EXPECT_EQ(tokenizer.eos_id(), 257);
  EXPECT_EQ(tokenizer.pad_id(), 257);
  EXPECT_THAT(std::vector(tokenizer.eos_ids().begin(), tokenizer.eos_ids().end()), ElementsAre(257, 258));
}

TEST_F(LoadTokenizer, TakesTokensThatStandInTheConfigurationAlone) {
  write("tokenizer_config.json",
        {{"added_tokens_decoder", {{"257", {{"content", "</s>"}}}, {"259", {{"content", "<tool>"}, {"special", true}}}}}});
  const Tokenizer tokenizer = load_tokenizer(folder_);
  EXPECT_EQ(tokenizer.token_id("<tool>"), 259);
  EXPECT_TRUE(tokenizer.is_special(259));
  EXPECT_THAT(tokenizer.encode("<tool>"), ElementsAre(259));
  EXPECT_EQ(tokenizer.vocab_size(), 260);
}

TEST_F(LoadTokenizer, NeedsNoFilesBesideIt) {
  EXPECT_EQ(load_tokenizer(folder_).eos_id(), std::nullopt);
  EXPECT_EQ(load_tokenizer(folder_ / "tokenizer.json").vocab_size(), 259);
}

TEST_F(LoadTokenizer, RefusesSpecialTokensOfAnotherModel) {
  write("tokenizer_config.json", {{"eos_token", "<|eot|>"}});
  expect_error(ErrorKind::kMismatch, "eos_token is '<|eot|>', which the vocabulary of 259 ids lacks", [&] { load_tokenizer(folder_); });
  write("tokenizer_config.json", json::object());
  write("config.json", {{"eos_token_id", 5000}});
  expect_error(ErrorKind::kMismatch, "the eos token has the id 5000, outside the vocabulary of 259 ids", [&] { load_tokenizer(folder_); });
  write("config.json", {{"eos_token_id", "two"}});
  expect_error(ErrorKind::kBadFormat, "eos_token_id is \"two\"", [&] { load_tokenizer(folder_); });
}

TEST_F(LoadTokenizer, SaysWhatIsMissing) {
  std::filesystem::remove(folder_ / "tokenizer.json");
  expect_error(ErrorKind::kNotFound, "no tokenizer.json in this folder", [&] { load_tokenizer(folder_); });
  expect_error(ErrorKind::kNotFound, "no such file or folder", [&] { load_tokenizer(folder_ / "x.gguf"); });
}

}  // namespace
}  // namespace quiver::text
