// The fuzz targets of report as ordinary tests.
#include "fuzz/results.h"
#include "fuzz/run_corpus.h"

namespace quiver::report {
namespace {

TEST(Corpus, OfResultsHasNoFindings) { fuzz::run_corpus("results", fuzz::run_results, 8, /*num_mutations=*/100); }

}  // namespace
}  // namespace quiver::report
