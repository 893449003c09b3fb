#include "quiver/text/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"
#include "quiver/text/tokenizer.h"

namespace quiver::text {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A model folder that holds one of the tokenizers of tests/golden/tokenizer.
class WrittenGgufTokenizer : public ::testing::Test {
 protected:
  WrittenGgufTokenizer() { fs::create_directories(folder_); }
  ~WrittenGgufTokenizer() override { io::remove_tree(folder_); }

  void put(const nlohmann::json& description) { io::write_file_atomic(folder_ / "tokenizer.json", description.dump()); }
  static nlohmann::json golden(const char* name) { return io::read_json_file(fs::path("tests/golden/tokenizer") / name); }

  static Tokenizer read(const io::GgufMetadata& metadata) {
    const auto bytes = io::gguf_metadata_file(metadata);
    return Tokenizer::from_gguf(io::GgufView::parse(std::as_bytes(std::span(bytes)), "written"));
  }
  const fs::path folder_ = fs::path(::testing::TempDir()) / "quiver-gguf-tokenizer";
};

TEST_F(WrittenGgufTokenizer, FindsTheNameOfTheWayToCut) {
  for (const auto& [file, pre] : {std::pair{"gpt2.json", "gpt-2"}, {"llama3.json", "llama-bpe"}}) {
    auto description = golden(file);
    if (description["pre_tokenizer"].contains("add_prefix_space")) description["pre_tokenizer"]["add_prefix_space"] = false;
    put(description);
    const auto metadata = gguf_tokenizer(folder_, "llama", load_tokenizer(folder_).vocab_size());
    EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.ggml.pre")), pre);
    const auto written = read(metadata), given = load_tokenizer(folder_);
    const char* text = "The quick brown fox, it's 1234 and\n\n  more... naïve 你好";
    EXPECT_EQ(written.encode(text), given.encode(text)) << file;
    EXPECT_EQ(written.decode(written.encode(text)), given.decode(given.encode(text))) << file;
  }
}

/// "▁a", "ab" and the bytes of "é" beside their characters: SentencePiece's kind with merges.
nlohmann::json marked(bool prefix) {
  nlohmann::json vocabulary = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  const auto add = [&](const std::string& token) { vocabulary[token] = vocabulary.size(); };
  for (int byte = 0; byte < 256; ++byte) {
    char spelling[8];
    std::snprintf(spelling, sizeof(spelling), "<0x%02X>", byte);
    add(spelling);
  }
  for (const char* token : {"▁", "a", "b", "c", "▁a", "ab", "abc", "▁▁"}) add(token);
  const auto part = [](const char* text) { return nlohmann::json::parse(text); };
  nlohmann::json all;
  all["added_tokens"] = part(R"([{"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}])");
  all["normalizer"] = part(prefix ? R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"
                                  : R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})");
  all["model"] = part(R"({"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>",
                          "merges": ["a b", "▁ a", "ab c", "▁ ▁"]})");
  all["model"]["vocab"] = vocabulary;
  all["decoder"] = part(R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                            {"type": "ByteFallback"}, {"type": "Fuse"}]})");
  return all;
}

TEST_F(WrittenGgufTokenizer, GivesScoresByTheRanksOfMerges) {
  for (const bool prefix : {true, false}) {
    put(marked(prefix));
    const auto metadata = gguf_tokenizer(folder_, "llama", 300);
    EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.ggml.model")), "llama");
    EXPECT_EQ(std::get<bool>(metadata.at("tokenizer.ggml.add_space_prefix")), prefix);
    EXPECT_EQ(std::get<std::vector<std::string>>(metadata.at("tokenizer.ggml.tokens")).size(), 300);
    const auto written = read(metadata), given = load_tokenizer(folder_);
    for (const char* text : {"abc", " abc ab a", "aabbcc  abé", "ab<s>abc"}) EXPECT_EQ(written.encode(text), given.encode(text)) << text;
  }
}

TEST_F(WrittenGgufTokenizer, RefusesAWayToCutWithoutAName) {
  auto odd = golden("gpt2.json");
  odd["pre_tokenizer"] = nlohmann::json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[aeiou]+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})");
  put(odd);
  EXPECT_THAT(testing::error_of([&] { gguf_tokenizer(folder_, "llama", load_tokenizer(folder_).vocab_size()); }),
              HasSubstr("that no tokenizer.ggml.pre names"));
}

}  // namespace
}  // namespace quiver::text
