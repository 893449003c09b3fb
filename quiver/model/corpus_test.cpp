// The fuzz targets of model as ordinary tests.
#include "fuzz/model_config.h"
#include "fuzz/run_corpus.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

TEST(Corpus, OfModelConfigurationsHasNoFindings) { fuzz::run_corpus("model_config", fuzz::run_model_config, 10); }
TEST(Corpus, OfGgufMetadataHasNoFindings) { fuzz::run_corpus("gguf_config", fuzz::run_gguf_config, 8); }

TEST(GgufConfig, RefusesByName) {
  const auto refuses = [](const char* name, ErrorKind kind, const char* part) {
    SCOPED_TRACE(name);
    const io::MappedFile file(std::filesystem::path("fuzz/corpus/gguf_config") / name);
    EXPECT_ERROR(spec_from_gguf(io::GgufView::parse(file.bytes(), name)), kind, part);
  };
  refuses("experts", ErrorKind::kUnsupported, "llama.expert_count is 8, which is not supported; expected 0");
  refuses("theta", ErrorKind::kBadFormat, "rope theta is nan; expected a positive, finite number");
  refuses("huge", ErrorKind::kBadFormat, "hidden size is 4611686018427387904; expected 1 to");
  refuses("other_architecture", ErrorKind::kUnsupported, "architecture 'mamba' is not supported");
}

}  // namespace
}  // namespace quiver::model
