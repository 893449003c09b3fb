// The fuzz targets of lora as ordinary tests.
#include "fuzz/gguf_lora.h"
#include "fuzz/peft_config.h"
#include "fuzz/run_corpus.h"

namespace quiver::adapters {
namespace {

TEST(Corpus, OfPythonPatternsHasNoFindings) { fuzz::run_corpus("python_pattern", fuzz::run_python_pattern, 20); }
TEST(Corpus, OfAdapterConfigurationsHasNoFindings) { fuzz::run_corpus("peft_config", fuzz::run_peft_config, 20); }
TEST(Corpus, OfGgufLorasHasNoFindings) { fuzz::run_corpus("gguf_lora", fuzz::run_gguf_lora, 8); }

}  // namespace
}  // namespace quiver::adapters
