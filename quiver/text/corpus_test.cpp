// The fuzz targets of text as ordinary tests.
#include "fuzz/jinja.h"
#include "fuzz/run_corpus.h"
#include "fuzz/tokenizer.h"

namespace quiver::text {
namespace {

TEST(Corpus, OfTokenizersHasNoFindings) { fuzz::run_corpus("tokenizer", fuzz::run_tokenizer, 13); }
TEST(Corpus, OfChatTemplatesHasNoFindings) { fuzz::run_corpus("jinja", fuzz::run_jinja, 25, /*num_mutations=*/100); }

}  // namespace
}  // namespace quiver::text
