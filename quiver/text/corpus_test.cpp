// The fuzz targets of text as ordinary tests.
#include "fuzz/jinja.h"
#include "fuzz/run_corpus.h"
#include "fuzz/tokenizer.h"
#include "fuzz/tokenizer_paths.h"
#include "quiver/base/random.h"

namespace quiver::text {
namespace {

TEST(Corpus, OfTokenizersHasNoFindings) { fuzz::run_corpus("tokenizer", fuzz::run_tokenizer, 13); }
TEST(Corpus, OfChatTemplatesHasNoFindings) { fuzz::run_corpus("jinja", fuzz::run_jinja, 25, /*num_mutations=*/100); }
TEST(Corpus, OfTokenizerPathsHasNoFindings) { fuzz::run_corpus("tokenizer_paths", fuzz::run_tokenizer_paths, 9); }

TEST(TokenizerPaths, OfRandomModelsAgree) {
  RandomStream random(1, "tokenizer_paths");
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    const auto most = 4 + random.below(300);
    for (std::uint64_t i = 0; i < most; ++i) bytes += static_cast<char>(random.below(256));
    ASSERT_NO_THROW(fuzz::run_tokenizer_paths(std::as_bytes(std::span(bytes)))) << "round " << round;
  }
}

}  // namespace
}  // namespace quiver::text
