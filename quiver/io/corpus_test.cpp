// The fuzz targets as ordinary tests: each file of the seed corpora, and seeded mutations of it.

#include "fuzz/parsers.h"
#include "quiver/base/random.h"
#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using RunParser = void (*)(std::span<const std::byte>);

void run(RunParser parser, const std::string& bytes) { parser(std::as_bytes(std::span(bytes))); }

/// One of: a few flipped bits, a cut, a part overwritten by another part, a number at the edge of its range.
std::string mutated(std::string bytes, RandomStream& random) {
  if (bytes.empty()) return bytes;
  const auto place = [&] { return random.below(bytes.size()); };
  switch (random.below(4)) {
    case 0:
      for (auto flips = random.below(4) + 1; flips > 0; --flips) {
        char& target = bytes[place()];
        target = static_cast<char>(static_cast<unsigned>(target) ^ 1U << random.below(8));
      }
      return bytes;
    case 1: return bytes.substr(0, place());
    case 2: {
      const std::string part = bytes.substr(place(), random.below(16) + 1);
      return bytes.replace(place(), part.size(), part);
    }
    default: {
      constexpr std::uint64_t kEdges[] = {0, 1, 0x7f, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX};
      const std::uint64_t edge = kEdges[random.below(std::size(kEdges))];
      bytes.resize(bytes.size() + 8);
      return bytes.replace(place(), 8, reinterpret_cast<const char*>(&edge), 8);
    }
  }
}

void run_corpus(const std::string& name, RunParser parser) {
  std::int64_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator("fuzz/corpus/" + name)) {
    SCOPED_TRACE(file.path().native());
    const std::string bytes = read_text_file(file.path());
    ASSERT_NO_THROW(run(parser, bytes));
    RandomStream random(1, "corpus/" + name + "/" + file.path().filename().native());
    for (int round = 0; round < 300; ++round) {
      ASSERT_NO_THROW(run(parser, mutated(bytes, random))) << "round " << round;
    }
    ++num_files;
  }
  EXPECT_GE(num_files, 10);
}

TEST(Corpus, OfSafetensorsHasNoFindings) { run_corpus("safetensors", fuzz::run_safetensors); }

TEST(Corpus, OfGgufHasNoFindings) { run_corpus("gguf", fuzz::run_gguf); }

TEST(Corpus, OfJsonLinesHasNoFindings) { run_corpus("jsonl", fuzz::run_jsonl); }

}  // namespace
}  // namespace quiver::io
