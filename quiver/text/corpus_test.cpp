// The fuzz targets of tokenizers and chat templates as ordinary tests: each file of the seed corpus, and seeded mutations of it.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "fuzz/jinja.h"
#include "fuzz/tokenizer.h"
#include "fuzz/tokenizer_paths.h"
#include "quiver/base/random.h"
#include "quiver/io/file.h"

namespace quiver::text {
namespace {

void run(const std::string& bytes) { fuzz::run_tokenizer(std::as_bytes(std::span(bytes))); }

/// A flipped bit, a part left out, a part put elsewhere again, or a character that tokenizers find difficult.
std::string mutated(std::string bytes, RandomStream& random) {
  const auto place = [&] { return random.below(bytes.size()); };
  const std::string part = bytes.substr(place(), random.below(16) + 1);
  switch (random.below(4)) {
    case 0: {
      char& target = bytes[place()];
      target = static_cast<char>(static_cast<unsigned>(target) ^ 1U << random.below(8));
      return bytes;
    }
    case 1: return bytes.erase(place(), random.below(8) + 1);
    case 2: return bytes.insert(place(), part);
    default: {
      constexpr const char* kPieces[] = {"\\", "[", "(", "{2}", "\\\\p{L}", "é", "\xCC\x81", "\xE2\x80", " ", "<s>", "99"};
      return bytes.insert(place(), kPieces[random.below(std::size(kPieces))]);
    }
  }
}

TEST(Corpus, OfTokenizersHasNoFindings) {
  std::int64_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator("fuzz/corpus/tokenizer")) {
    SCOPED_TRACE(file.path().native());
    const std::string bytes = io::read_text_file(file.path());
    ASSERT_NO_THROW(run(bytes));
    RandomStream random(1, "corpus/tokenizer/" + file.path().filename().native());
    for (int round = 0; round < 300; ++round) {
      ASSERT_NO_THROW(run(mutated(bytes, random))) << "round " << round;
    }
    ++num_files;
  }
  EXPECT_GE(num_files, 13);
}

TEST(Corpus, OfTokenizerPathsHasNoFindings) {
  std::int64_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator("fuzz/corpus/tokenizer_paths")) {
    SCOPED_TRACE(file.path().native());
    const std::string bytes = io::read_text_file(file.path());
    ASSERT_NO_THROW(fuzz::run_tokenizer_paths(std::as_bytes(std::span(bytes))));
    RandomStream random(1, "corpus/tokenizer_paths/" + file.path().filename().native());
    for (int round = 0; round < 300; ++round) {
      const std::string changed = mutated(bytes, random);
      ASSERT_NO_THROW(fuzz::run_tokenizer_paths(std::as_bytes(std::span(changed)))) << "round " << round;
    }
    ++num_files;
  }
  EXPECT_GE(num_files, 9);
}

TEST(TokenizerPaths, OfRandomModelsAgree) {
  RandomStream random(1, "tokenizer_paths");
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    const auto most = 4 + random.below(300);
    for (std::uint64_t i = 0; i < most; ++i) bytes += static_cast<char>(random.below(256));
    ASSERT_NO_THROW(fuzz::run_tokenizer_paths(std::as_bytes(std::span(bytes)))) << "round " << round;
  }
}

TEST(Corpus, OfChatTemplatesHasNoFindings) {
  std::int64_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator("fuzz/corpus/jinja")) {
    SCOPED_TRACE(file.path().native());
    const std::string bytes = io::read_text_file(file.path());
    ASSERT_NO_THROW(fuzz::run_jinja(std::as_bytes(std::span(bytes))));
    RandomStream random(1, "corpus/jinja/" + file.path().filename().native());
    for (int round = 0; round < 100; ++round) {
      const std::string changed = mutated(bytes, random);
      ASSERT_NO_THROW(fuzz::run_jinja(std::as_bytes(std::span(changed)))) << "round " << round;
    }
    ++num_files;
  }
  EXPECT_GE(num_files, 20);
}

}  // namespace
}  // namespace quiver::text
