// The fuzz targets of model as ordinary tests.
#include "fuzz/model_config.h"
#include "fuzz/run_corpus.h"

namespace quiver::model {
namespace {

TEST(Corpus, OfModelConfigurationsHasNoFindings) { fuzz::run_corpus("model_config", fuzz::run_model_config, 10); }
TEST(Corpus, OfGgufMetadataHasNoFindings) { fuzz::run_corpus("gguf_config", fuzz::run_gguf_config, 8); }

}  // namespace
}  // namespace quiver::model
