// The fuzz targets of library as ordinary tests.
#include "fuzz/library.h"
#include "fuzz/run_corpus.h"

namespace quiver::library {
namespace {

TEST(Corpus, OfCataloguesHasNoFindings) { fuzz::run_corpus("catalogue", fuzz::run_catalogue, 10); }
TEST(Corpus, OfMixingFilesHasNoFindings) { fuzz::run_corpus("mixing", fuzz::run_mixing, 8); }
TEST(Corpus, OfArtifactRecordsHasNoFindings) { fuzz::run_corpus("artifact", fuzz::run_artifact, 6); }

}  // namespace
}  // namespace quiver::library
