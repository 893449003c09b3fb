// Against the values of `tokenizers` in tests/golden/tokenizer; see the README there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/regex/pattern.h"
#include "quiver/text/normalizer.h"
#include "quiver/text/oniguruma.h"
#include "quiver/text/pre_tokenizer.h"
#include "quiver/text/tokenizer.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kGolden = "tests/golden/tokenizer";

std::vector<json> read_rows(const fs::path& path) {
  std::vector<json> rows;
  io::JsonLinesReader reader(path);
  while (auto row = reader.next()) rows.push_back(std::move(*row));
  return rows;
}

using Ids = std::vector<std::int32_t>;

/// The first three texts whose ids differ; the rest only counts.
class Differences {
 public:
  void check(const std::string& text, const Ids& actual, const Ids& expected) {
    if (actual == expected) return;
    if (++count_ > 3) return;
    ADD_FAILURE() << "text " << json(text) << "\n got  " << json(actual) << "\n want " << json(expected);
  }
  std::int64_t count() const { return count_; }

 private:
  std::int64_t count_ = 0;
};

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, GivesTheSameIdsAndTexts) {
  const std::string name = GetParam();
  const Tokenizer tokenizer = load_tokenizer(kGolden / (name + ".json"));
  Differences differences;
  std::int64_t num_texts = 0;
  for (const json& row : read_rows(kGolden / "ids.jsonl.zst")) {
    const auto text = row.at("text").get<std::string>();
    SCOPED_TRACE(text);
    const auto ids = row.at(name).get<Ids>();
    differences.check(text, tokenizer.encode(text), ids);
    differences.check(text, tokenizer.encode(text, {.add_special_tokens = true}), row.value(name + ".special", row.at(name)).get<Ids>());
    const auto decoded = row.value(name + ".decoded", text);
    EXPECT_EQ(tokenizer.decode(ids), decoded);
    EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), row.value(name + ".plain", decoded));
    ++num_texts;
  }
  EXPECT_EQ(differences.count(), 0);
  EXPECT_EQ(num_texts, 2300);
}

INSTANTIATE_TEST_SUITE_P(Styles, GoldenTokenizer, ::testing::Values("gpt2", "llama3", "smollm", "odd"),
                         [](const auto& param_info) { return std::string(param_info.param); });

/// What comes out when ids are pushed one by one; every part must be text by itself.
std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    text += decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(text)) << json(ids);
  }
  return text + decoder.finish();
}

TEST(GoldenComponents, GiveTheSameIdsAndTexts) {
  std::int64_t num_tokenizers = 0, num_decoded = 0;
  for (const json& row : read_rows(kGolden / "components.jsonl.zst")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const auto tokenizer = Tokenizer::from_tokenizer_json(row.at("tokenizer"), "golden");
    Differences differences;
    for (const json& text : row.at("texts")) {
      differences.check(text[0], tokenizer.encode(text[0].get<std::string>()), text[1].get<Ids>());
      differences.check(text[0], tokenizer.encode(text[0].get<std::string>(), {.add_special_tokens = true}), text[2].get<Ids>());
    }
    EXPECT_EQ(differences.count(), 0);
    for (const json& decoded : row.at("decoded")) {
      const auto ids = decoded[0].get<Ids>();
      ASSERT_EQ(json(streamed(tokenizer, ids, /*skip_special=*/false)), decoded[1]) << decoded[0];
      ASSERT_EQ(json(streamed(tokenizer, ids, /*skip_special=*/true)), decoded[2]) << decoded[0];
      ASSERT_EQ(json(tokenizer.decode(ids)), decoded[1]) << decoded[0];
      ++num_decoded;
    }
    ++num_tokenizers;
  }
  EXPECT_EQ(num_tokenizers, 36);
  EXPECT_GE(num_decoded, 7000);
}

/// Where `quiver fetch` and scripts/setup.sh --test put what they download.
fs::path cache_folder() {
  const char* cache = std::getenv("QUIVER_CACHE");
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return cache != nullptr ? fs::path(cache)
         : xdg != nullptr ? fs::path(xdg) / "quiver"
                          : fs::path(home != nullptr ? home : "") / ".cache" / "quiver";
}

/// The texts between the separators of llama.cpp's file of test inputs.
std::vector<std::string> vector_texts(const std::string& file) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  std::size_t begin = 0;
  for (auto end = file.find(kSeparator); end != std::string::npos; end = file.find(kSeparator, begin)) {
    texts.push_back(file.substr(begin, end - begin));
    begin = end + kSeparator.size();
  }
  texts.push_back(file.substr(begin));
  return texts;
}

/// A vocabulary of llama.cpp's with texts and the ids that Hugging Face's tokenizer of the model gave.
class GgufVectors : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufVectors, GivesTheIdsOfHuggingFace) {
  const auto path = cache_folder() / "vocabularies/llama.cpp" / ("ggml-vocab-" + std::string(GetParam()) + ".gguf");
  if (!fs::exists(path)) GTEST_SKIP() << path.string() << " is missing; scripts/setup.sh --test gets it";
  const Tokenizer tokenizer = load_tokenizer(path);
  std::istringstream lines(io::read_text_file(path.string() + ".out"));
  Differences differences;
  std::int64_t num_texts = 0;
  for (const auto& text : vector_texts(io::read_text_file(path.string() + ".inp"))) {
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    Ids ids;
    for (std::int32_t id = 0; numbers >> id;) ids.push_back(id);
    differences.check(text, tokenizer.encode(text), ids);
    ++num_texts;
  }
  EXPECT_EQ(differences.count(), 0);
  EXPECT_GE(num_texts, 46);
}

INSTANTIATE_TEST_SUITE_P(Vectors, GgufVectors,
                         ::testing::Values("llama-spm", "phi-3", "gemma-4", "llama-bpe", "gpt-2", "qwen2", "mpt", "starcoder", "refact",
                                           "command-r"),
                         [](const auto& param_info) {
                           std::string name = param_info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Tokenizer, GivesTheIdsOfSmolLM2) {
  const fs::path path = cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << path.string() << " is not there; 'quiver fetch' gets it";
  const Tokenizer tokenizer = load_tokenizer(path);
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.eos_id(), tokenizer.token_id("<|im_end|>"));
  Differences differences;
  std::int64_t num_texts = 0;
  for (const json& row : read_rows(kGolden / "smollm2_ids.jsonl.zst")) {
    const auto text = row.at("text").get<std::string>();
    differences.check(text, tokenizer.encode(text), row.at("smollm2").get<Ids>());
    ++num_texts;
  }
  EXPECT_EQ(differences.count(), 0);
  EXPECT_EQ(num_texts, 1000);
}

std::vector<std::string> split_by(const PreTokenizer& splitter, const std::string& text) {
  Pieces pieces;
  pre_tokenize(splitter, text, pieces);
  return {pieces.views.begin(), pieces.views.end()};
}

TEST(PreTokenizer, SplitsAsTokenizersDoes) {
  std::int64_t num_texts = 0;
  for (const json& row : read_rows(kGolden / "splits.jsonl.zst")) {
    const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const json steps = json::array({row.at("split"), bytes});
    const auto splitter = parse_pre_tokenizer({{"type", "Sequence"}, {"pretokenizers", steps}}, "golden");
    for (std::size_t i = 0; i < row.at("texts").size(); ++i) {
      const auto pieces = row.at("pieces")[i].get<std::vector<std::string>>();
      ASSERT_EQ(split_by(splitter, row.at("texts")[i].get<std::string>()), pieces) << row.at("split") << "\n" << row.at("texts")[i];
      ++num_texts;
    }
  }
  EXPECT_EQ(num_texts, 4400);
}

/// All characters but surrogates, one after another.
const std::string& all_characters() {
  static const std::string text = [] {
    std::string out;
    for (char32_t c = 0; c < 0x110000; ++c) {
      if (c < 0xD800 || c > 0xDFFF) append_utf8(out, c);
    }
    return out;
  }();
  return text;
}

std::vector<std::int64_t> matched_ranges(const std::string& pattern) {
  const std::string& text = all_characters();
  std::vector<std::int64_t> ranges;
  const auto add = [&](char32_t c) {
    if (!ranges.empty() && ranges.back() == static_cast<std::int64_t>(c) - 1) {
      ranges.back() = c;
    } else {
      ranges.insert(ranges.end(), {c, c});
    }
  };
  if (pattern == "digits" || pattern == "word") {
    for (char32_t c = 0; c < 0x110000; ++c) {
      const bool is_member = pattern == "digits" ? is_numeric(c) : is_word(c);
      if (is_member && (c < 0xD800 || c > 0xDFFF)) add(c);
    }
    return ranges;
  }
  std::vector<regex::Match> matches;
  regex::Pattern(translate_pattern(pattern, "golden"), "golden").find_all(text, matches);
  for (const regex::Match& match : matches) add(code_point_at(text, match.begin).value);
  return ranges;
}

TEST(Regex, ClassesHoldTheCharactersThatTokenizersHas) {
  for (const json& row : read_rows(kGolden / "classes.jsonl.zst")) {
    const auto pattern = row.at("pattern").get<std::string>();
    EXPECT_EQ(matched_ranges(pattern), row.at("ranges").get<std::vector<std::int64_t>>()) << pattern;
  }
}

TEST(Normalizer, GivesTheFormsOfTokenizers) {
  for (const json& row : read_rows(kGolden / "normal_forms.jsonl.zst")) {
    const auto text = row.at("text").get<std::string>();
    for (const char* name : {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}) {
      const Normalizer normalizer = parse_normalizer({{"type", name}}, "golden");
      ASSERT_EQ(json(normalize(normalizer, text)), json(row.value(name, text))) << name << " of " << json(text);
    }
  }
}

}  // namespace
}  // namespace quiver::text
