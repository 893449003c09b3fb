#include "quiver/api/answer.h"

#include <algorithm>
#include <utility>

#include "fuzz/sentencepiece.h"
#include "fuzz/tokenizer.h"
#include "quiver/api/test_support.h"
#include "quiver/base/random.h"
#include "quiver/base/utf8.h"

namespace quiver::api {
namespace {

using Ids = std::vector<std::int32_t>;
using schedule::Finish;
using schedule::TokenScore;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A decoder of Llama 2's kind: the first space of a text is taken off.
text::Tokenizer stripping_tokenizer() {
  nlohmann::json vocab{{"<unk>", 0}, {"a", 1}, {"▁a", 2}, {"▁", 3}, {"b", 4}};
  for (int byte = 0; byte < 256; ++byte) vocab[format("<0x{:02X}>", byte)] = byte + 5;
  const nlohmann::json to_space = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  return text::Tokenizer::from_tokenizer_json(
      {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}, {"byte_fallback", true}, {"unk_token", "<unk>"}}},
       {"added_tokens", {{{"id", 261}, {"content", "<s>"}, {"special", true}}}},
       {"decoder",
        {{"type", "Sequence"},
         {"decoders",
          {to_space, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}}},
      "test");
}

Ids offsets_of(const std::vector<AnswerToken>& tokens) {
  Ids offsets;
  for (const auto& token : tokens) offsets.push_back(static_cast<std::int32_t>(token.text_offset));
  return offsets;
}

Ids ids_of(const std::vector<AnswerToken>& tokens) {
  Ids ids;
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

/// The deltas of an answer: the echo's, one per token, and the last.
std::vector<Delta> deltas_of(const text::Tokenizer& tokenizer, const Ids& prompt, const Ids& ids, const AnswerOptions& options,
                             Finish finish = Finish::kLength) {
  Answer answer(tokenizer, prompt, options);
  std::vector<Delta> deltas = {answer.start()};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    deltas.push_back(answer.push(ids[i], std::nullopt, i + 1 == ids.size() ? std::optional(finish) : std::nullopt));
  }
  if (ids.empty()) deltas.push_back(answer.end(finish));
  return deltas;
}

Delta whole_of(std::vector<Delta> deltas) {
  Delta whole;
  for (auto& delta : deltas) append(whole, std::move(delta));
  return whole;
}

Delta whole_of(const text::Tokenizer& tokenizer, const Ids& prompt, const Ids& ids, const AnswerOptions& options,
               Finish finish = Finish::kLength) {
  return whole_of(deltas_of(tokenizer, prompt, ids, options, finish));
}

std::vector<std::string> texts_of(const std::vector<Delta>& deltas) {
  std::vector<std::string> texts;
  for (const auto& delta : deltas) texts.push_back(delta.text);
  return texts;
}

TEST(Answer, HoldsBackUnfinishedCharactersWithTheirTokens) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  const auto ids = tokenizer.encode("a\u20acb");  // the euro sign is three tokens
  ASSERT_EQ(ids.size(), 5U);
  const auto deltas = deltas_of(tokenizer, {}, ids, {});
  EXPECT_THAT(texts_of(deltas), ElementsAre("", "a", "", "", "\u20ac", "b"));
  EXPECT_THAT(ids_of(deltas[4].tokens), ElementsAre(ids[1], ids[2], ids[3]));
  EXPECT_THAT(offsets_of(whole_of(deltas).tokens), ElementsAre(0, 1, 1, 1, 2));
  EXPECT_THAT(texts_of(deltas_of(tokenizer, {}, {ids[0], ids[1]}, {})), ElementsAre("", "a", "\uFFFD"));
}

TEST(Answer, ListsTokensThatItsTextDoesNotHold) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  const auto special = *tokenizer.token_id("<s>");
  const auto ended = whole_of(tokenizer, {}, {'a', special}, {}, Finish::kStopId);
  EXPECT_EQ(ended.text, "a");
  EXPECT_THAT(ids_of(ended.tokens), ElementsAre('a', special));
  EXPECT_EQ(ended.finish, FinishReason::kStop);
  // The token of a stop id is left out even if it is text, or if special tokens are shown.
  EXPECT_EQ(whole_of(tokenizer, {}, {'a', 'b'}, {}, Finish::kStopId).text, "a");
  EXPECT_EQ(whole_of(tokenizer, {}, {'a', special}, {.skips_special_tokens = false}, Finish::kStopId).text, "a");
  EXPECT_EQ(whole_of(tokenizer, {}, {'a', special, 'b'}, {.skips_special_tokens = false}).text, "a<s>b");
  EXPECT_EQ(whole_of(tokenizer, {}, {'a', special, 'b'}, {}).text, "ab");
  const auto cut = whole_of(tokenizer, {}, {'a', '\n', '\n', 'b'}, {.stops = {"\n\n"}});
  EXPECT_EQ(cut.text, "a");
  EXPECT_THAT(ids_of(cut.tokens), ElementsAre('a', '\n', '\n'));
  EXPECT_THAT(offsets_of(cut.tokens), ElementsAre(0, 1, 1));
  EXPECT_EQ(cut.finish, FinishReason::kStop);
}

TEST(Answer, SaysThatAStopStringEndedIt) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  Answer answer(tokenizer, {}, {.stops = {"xy"}});
  answer.start();
  EXPECT_TRUE(answer.push('x', std::nullopt, std::nullopt).is_empty());
  EXPECT_FALSE(answer.is_ended());
  const auto last = answer.push('y', std::nullopt, std::nullopt);
  EXPECT_EQ(last.finish, FinishReason::kStop);
  EXPECT_TRUE(answer.is_ended() && answer.is_stopped());
  EXPECT_EQ(answer.num_tokens(), 2);
  EXPECT_TRUE(answer.push('z', std::nullopt, Finish::kLength).is_empty());
  EXPECT_TRUE(answer.end(Finish::kLength).is_empty());
  EXPECT_EQ(answer.num_tokens(), 2);
}

TEST(Answer, LooksForStopStringsAfterTheFirstTokensAlone) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  EXPECT_EQ(whole_of(tokenizer, {}, {'x', 'a', 'x', 'b'}, {.stops = {"x"}, .min_new_tokens = 2}).text, "xa");
  EXPECT_EQ(whole_of(tokenizer, {}, {'x', 'a', 'x', 'b'}, {.stops = {"x"}, .min_new_tokens = 1}).text, "xa");
  EXPECT_EQ(whole_of(tokenizer, {}, {'x', 'a', 'x', 'b'}, {.stops = {"x"}}).text, "");
}

TEST(Answer, EchoesThePromptWithItsScores) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  const Ids prompt = {*tokenizer.token_id("<s>"), 'h', 'i'};
  Answer answer(tokenizer, prompt, {.stops = {"hi"}, .echoes = true});  // not looked for in the prompt
  auto whole = answer.start({{.token = 'h', .log_prob = -1}, {.token = 'i', .log_prob = -2}});
  EXPECT_EQ(whole.text, "<s>hi");
  EXPECT_THAT(ids_of(whole.tokens), ElementsAre(prompt[0], 'h', 'i'));
  EXPECT_FALSE(whole.tokens[0].score);
  EXPECT_EQ(whole.tokens[1].score->log_prob, -1);
  append(whole, answer.push('!', TokenScore{.token = '!', .log_prob = -3}, Finish::kLength));
  EXPECT_EQ(whole.text, "<s>hi!");
  EXPECT_THAT(offsets_of(whole.tokens), ElementsAre(0, 3, 4, 5));
  EXPECT_EQ(whole.tokens[3].score->log_prob, -3);
  EXPECT_EQ(whole.finish, FinishReason::kLength);
  Answer other(tokenizer, prompt, {.echoes = true});
  EXPECT_ERROR(other.start({{.token = 'h'}}), ErrorKind::kInternal, "1 scores for a prompt of 3 tokens");
  EXPECT_ERROR(Answer(tokenizer, prompt, {}).push(1, std::nullopt, std::nullopt), ErrorKind::kInternal, "before the answer's start");
}

TEST(Answer, WithoutATokenIsTheEchoAlone) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  const auto echo = whole_of(tokenizer, {'h', 'i'}, {}, {.echoes = true});
  EXPECT_EQ(echo.text, "hi");
  EXPECT_EQ(echo.finish, FinishReason::kLength);
  EXPECT_EQ(whole_of(tokenizer, {'h', 'i'}, {}, {}).text, "");
  // The prompt ends within a character.
  EXPECT_EQ(whole_of(tokenizer, {0xE2, 0x82}, {}, {}).text, "");
  EXPECT_EQ(whole_of(tokenizer, {'a', 0xE2, 0x82}, {}, {.echoes = true}).text, "a\uFFFD");
}

TEST(Answer, GoesOnFromThePrompt) {
  const auto bytes = fuzz::lossless_tokenizer();
  EXPECT_EQ(whole_of(bytes, {'a', 0xE2, 0x82}, {0xAC, 'b'}, {}).text, "\u20acb");
  EXPECT_EQ(whole_of(bytes, {'a', 0xE2, 0x82}, {'b'}, {}).text, "b");
  EXPECT_EQ(whole_of(bytes, {'a', 0xE2, 0x82}, {'b'}, {.echoes = true}).text, "a\uFFFDb");
  const auto strips = stripping_tokenizer();
  EXPECT_EQ(strips.decode(Ids{2, 2}), "a a");
  EXPECT_EQ(whole_of(strips, {2}, {2, 1}, {}).text, " aa");  // the space of a first token alone is lost
  EXPECT_EQ(whole_of(strips, {}, {2, 1}, {}).text, "aa");
  EXPECT_EQ(whole_of(strips, {2}, {2, 1}, {.echoes = true}).text, "a aa");
  // The prompt ends with the bytes of a whole character, which the decoder still holds.
  EXPECT_EQ(whole_of(strips, {1, 5 + 0xC3, 5 + 0xA9}, {1}, {}).text, "a");
  EXPECT_EQ(whole_of(strips, {1, 5 + 0xC3, 5 + 0xA9}, {5 + 0xC3, 5 + 0xA8, 1}, {}).text, "\u00e8a");
  EXPECT_EQ(whole_of(strips, {1, 5 + 0xC3, 5 + 0xA9}, {}, {}).text, "");
  EXPECT_EQ(whole_of(strips, {1, 5 + 0xC3, 5 + 0xA9}, {1}, {.echoes = true}).text, "a\u00e9a");
}

TEST(Answer, RefusesLogitsThatAreNotFinite) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  Answer answer(tokenizer, {}, {});
  answer.start();
  EXPECT_THAT(refusal_of([&] { answer.end(Finish::kNotFinite); }), HasSubstr("500 internal_error -: the model's logits overflow"));
}

/// What Answer does, from the whole of prompt and tokens at once.
struct Twin {
  std::string text;
  Ids offsets;
};

Twin slowly(const text::Tokenizer& tokenizer, const Ids& prompt, const Ids& ids, const AnswerOptions& options, Finish finish,
            std::size_t num_pushed) {
  Ids shown = prompt;
  std::vector<std::string> before;  // text that is certain before each token
  text::StreamDecoder decoder(tokenizer);
  std::string certain;
  for (const auto id : prompt) {
    before.push_back(certain);
    decoder.append(id, certain);
  }
  const auto of_prompt = certain;
  auto copy = decoder;
  const auto held = copy.finish();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    before.push_back(certain);
    const bool is_cut = finish == Finish::kStopId && i + 1 == ids.size();
    if (is_cut || (options.skips_special_tokens && tokenizer.is_special(ids[i]))) continue;
    shown.push_back(ids[i]);
    decoder.append(ids[i], certain);
  }
  auto rest = tokenizer.decode(shown).substr(of_prompt.size());
  const bool has_held = rest.starts_with(held);
  if (has_held) rest.erase(0, held.size());
  auto first_stop = rest.size();
  for (const auto& stop : options.stops) first_stop = std::min(first_stop, rest.find(stop));
  Twin twin{.text = (options.echoes ? of_prompt + (has_held ? held : "") : "") + rest.substr(0, first_stop)};
  const auto skipped = options.echoes ? 0 : of_prompt.size() + (has_held ? held.size() : 0);
  const auto most = count_code_points(twin.text);
  for (std::size_t i = options.echoes ? 0 : prompt.size(); i < prompt.size() + num_pushed; ++i) {
    const auto begin = std::min(before[i].size(), skipped);
    twin.offsets.push_back(static_cast<std::int32_t>(std::min(count_code_points(before[i].substr(begin)), most)));
  }
  return twin;
}

/// Random tokens: mostly those of a text, sometimes any.
Ids drawn_ids(const text::Tokenizer& tokenizer, RandomStream& random, std::uint64_t most) {
  constexpr const char* kPieces[] = {" the", "a", "\n", "\n\n", "\u00e9", "\u20ac", "\U0001F600", "STOP", " ", "aaaa", "<s>", "\xe2\x80"};
  std::string text;
  for (auto left = random.below(most); left > 0; --left) text += kPieces[random.below(std::size(kPieces))];
  auto ids = tokenizer.encode(text);
  for (auto& id : ids) {
    if (random.below(8) == 0) id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(tokenizer.vocab_size() + 2)));
  }
  return ids;
}

class AnswerOfTokenizer : public ::testing::TestWithParam<const char*> {
 protected:
  static text::Tokenizer tokenizer() {
    const std::string name = GetParam();
    if (name == "bytes") return fuzz::lossless_tokenizer();
    if (name == "marks") return fuzz::lossless_marked_tokenizer();
    return name == "strips" ? stripping_tokenizer() : golden_tokenizer(name);
  }
};

TEST_P(AnswerOfTokenizer, StreamsTheWholeText) {
  const auto tokenizer = AnswerOfTokenizer::tokenizer();
  RandomStream random(1, std::string("answer/") + GetParam());
  std::int64_t num_stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto prompt = drawn_ids(tokenizer, random, 6), ids = drawn_ids(tokenizer, random, 12);
    AnswerOptions options{.skips_special_tokens = random.below(2) == 0, .echoes = random.below(2) == 0};
    const auto text = tokenizer.decode(ids);
    for (auto left = random.below(4); left > 0; --left) {
      auto stop = text.empty() ? std::string("x") : text.substr(random.below(text.size()), 1 + random.below(6));
      stop = replace_invalid_utf8(stop);
      options.stops.push_back(random.below(3) == 0 ? stop + "\n" : stop);
    }
    const auto finish = random.below(3) == 0 ? Finish::kStopId : Finish::kLength;
    Answer answer(tokenizer, prompt, options);
    Delta whole = answer.start();
    std::size_t num_pushed = 0;
    while (num_pushed < ids.size() && !answer.is_ended()) {
      const bool is_last = ++num_pushed == ids.size();
      auto delta = answer.push(ids[num_pushed - 1], std::nullopt, is_last ? std::optional(finish) : std::nullopt);
      ASSERT_TRUE(is_valid_utf8(delta.text));
      ASSERT_EQ(delta.finish.has_value(), answer.is_ended());
      append(whole, std::move(delta));
      ASSERT_TRUE(whole.tokens.empty() || whole.tokens.back().text_offset <= count_code_points(whole.text));
    }
    if (!answer.is_ended()) append(whole, answer.end(finish));
    SCOPED_TRACE(format("round {} prompt {} ids {} stops {} echo {}", round, nlohmann::json(prompt).dump(), nlohmann::json(ids).dump(),
                        nlohmann::json(options.stops).dump(), options.echoes));
    const auto twin = slowly(tokenizer, prompt, ids, options, finish, num_pushed);
    ASSERT_EQ(whole.text, twin.text);
    Ids expected = options.echoes ? prompt : Ids();
    expected.insert(expected.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(num_pushed));
    ASSERT_EQ(ids_of(whole.tokens), expected);
    ASSERT_TRUE(std::ranges::is_sorted(offsets_of(whole.tokens)));
    ASSERT_EQ(offsets_of(whole.tokens), twin.offsets);
    num_stopped += answer.is_stopped() ? 1 : 0;
  }
  EXPECT_GT(num_stopped, 300);
}

INSTANTIATE_TEST_SUITE_P(Styles, AnswerOfTokenizer, ::testing::Values("gpt2", "llama3", "smollm", "odd", "bytes", "marks", "strips"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(TokenText, SpellsBytesThatAreNoText) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  EXPECT_EQ(token_text(tokenizer, 'a'), "a");
  EXPECT_EQ(token_text(tokenizer, 0xE2), "bytes:\\xe2");
  EXPECT_EQ(token_text(tokenizer, *tokenizer.token_id("<s>")), "<s>");
  EXPECT_EQ(token_text(tokenizer, 1'000'000), "");
  EXPECT_EQ(token_text(stripping_tokenizer(), 2), " a");
  EXPECT_EQ(token_text(stripping_tokenizer(), 5 + 'A'), "A");
}

}  // namespace
}  // namespace quiver::api
