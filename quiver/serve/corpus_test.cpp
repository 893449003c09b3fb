// The fuzz target of the service as an ordinary test.
#include "fuzz/run_corpus.h"
#include "fuzz/service.h"

namespace quiver::serve {
namespace {

TEST(Corpus, OfRequestsToTheServiceHasNoFindings) { fuzz::run_corpus("service", fuzz::run_service, 20, /*num_mutations=*/60); }

}  // namespace
}  // namespace quiver::serve
