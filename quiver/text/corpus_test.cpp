// The fuzz targets of text as ordinary tests.
#include "fuzz/jinja.h"
#include "fuzz/run_corpus.h"
#include "fuzz/sentencepiece.h"
#include "fuzz/tokenizer.h"
#include "fuzz/tokenizer_paths.h"
#include "quiver/base/random.h"

namespace quiver::text {
namespace {

TEST(Corpus, OfTokenizersHasNoFindings) { fuzz::run_corpus("tokenizer", fuzz::run_tokenizer, 22); }
TEST(Corpus, OfChatTemplatesHasNoFindings) { fuzz::run_corpus("jinja", fuzz::run_jinja, 25, /*num_mutations=*/100); }
TEST(Corpus, OfTokenizerPathsHasNoFindings) { fuzz::run_corpus("tokenizer_paths", fuzz::run_tokenizer_paths, 9); }

TEST(Corpus, OfSentencePieceHasNoFindings) { fuzz::run_corpus("sentencepiece", fuzz::run_sentencepiece, 8); }
TEST(Corpus, OfGgufTokenizersHasNoFindings) { fuzz::run_corpus("gguf_tokenizer", fuzz::run_gguf_tokenizer, 13); }

/// Runs a target on 3000 random inputs of up to 300 bytes.
void run_on_random_bytes(const char* name, fuzz::RunParser run) {
  RandomStream random(1, name);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    const auto most = 4 + random.below(300);
    for (std::uint64_t i = 0; i < most; ++i) bytes += static_cast<char>(random.below(256));
    ASSERT_NO_THROW(run(std::as_bytes(std::span(bytes)))) << "round " << round;
  }
}

TEST(TokenizerPaths, OfRandomModelsAgree) { run_on_random_bytes("tokenizer_paths", fuzz::run_tokenizer_paths); }
TEST(SentencePiece, OfRandomModelsAgree) { run_on_random_bytes("sentencepiece", fuzz::run_sentencepiece); }

}  // namespace
}  // namespace quiver::text
