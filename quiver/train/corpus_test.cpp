// The fuzz targets of train as ordinary tests.
#include "fuzz/checkpoint.h"
#include "fuzz/run_corpus.h"

namespace quiver::train {
namespace {

TEST(Corpus, OfCheckpointsHasNoFindings) { fuzz::run_corpus("checkpoint", fuzz::run_checkpoint, 8); }

}  // namespace
}  // namespace quiver::train
