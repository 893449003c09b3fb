// Runs a fuzz target over its seed corpus as an ordinary test: each file, and seeded mutations of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <span>
#include <string>

#include "quiver/base/random.h"
#include "quiver/io/file.h"

namespace quiver::fuzz {

using RunParser = void (*)(std::span<const std::byte>);

/// One of: flipped bits, a cut, a part left out, put elsewhere again or written over another, a number at the edge of its range, or a
/// piece that parsers find difficult.
inline std::string mutated(std::string bytes, RandomStream& random) {
  if (bytes.empty()) return bytes;
  const auto place = [&] { return random.below(bytes.size()); };
  const std::string part = bytes.substr(place(), random.below(16) + 1);
  switch (random.below(7)) {
    case 0:
      for (auto flips = random.below(4) + 1; flips > 0; --flips) {
        char& target = bytes[place()];
        target = static_cast<char>(static_cast<unsigned>(target) ^ 1U << random.below(8));
      }
      return bytes;
    case 1: return bytes.substr(0, place());
    case 2: return bytes.erase(place(), random.below(8) + 1);
    case 3: return bytes.insert(place(), part);
    case 4: return bytes.replace(place(), part.size(), part);
    case 5: {
      constexpr std::uint64_t kEdges[] = {0, 1, 0x7f, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX};
      const std::uint64_t edge = kEdges[random.below(std::size(kEdges))];
      bytes.resize(bytes.size() + 8);
      return bytes.replace(place(), 8, reinterpret_cast<const char*>(&edge), 8);
    }
    default: {
      constexpr const char* kPieces[] = {"\\",       "[", "(",   ")",  "{2}", "\\\\p{L}", "é",    "\xCC\x81",
                                         "\xE2\x80", " ", "<s>", "99", "-1",  "1e99",     "null", "{}"};
      return bytes.insert(place(), kPieces[random.below(std::size(kPieces))]);
    }
  }
}

/// Fails unless fuzz/corpus/<name> holds `min_files` files or more, and `parser` throws nothing on any of them.
inline void run_corpus(const std::string& name, RunParser parser, std::int64_t min_files, int num_mutations = 300) {
  const auto run = [&](const std::string& bytes) { parser(std::as_bytes(std::span(bytes))); };
  std::int64_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator("fuzz/corpus/" + name)) {
    SCOPED_TRACE(file.path().native());
    const std::string bytes = io::read_text_file(file.path());
    ASSERT_NO_THROW(run(bytes));
    RandomStream random(1, "corpus/" + name + "/" + file.path().filename().native());
    for (int round = 0; round < num_mutations; ++round) {
      ASSERT_NO_THROW(run(mutated(bytes, random))) << "round " << round;
    }
    ++num_files;
  }
  EXPECT_GE(num_files, min_files);
}

}  // namespace quiver::fuzz
