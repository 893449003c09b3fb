// The fuzz target of http as an ordinary test.
#include "fuzz/http.h"
#include "fuzz/run_corpus.h"

namespace quiver::http {
namespace {

TEST(Corpus, OfHttpHasNoFindings) { fuzz::run_corpus("http", fuzz::run_http, 24, /*num_mutations=*/100); }

}  // namespace
}  // namespace quiver::http
