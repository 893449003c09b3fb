// The fuzz targets of io as ordinary tests.
#include "fuzz/parsers.h"
#include "fuzz/run_corpus.h"

namespace quiver::io {
namespace {

TEST(Corpus, OfSafetensorsHasNoFindings) { fuzz::run_corpus("safetensors", fuzz::run_safetensors, 10); }
TEST(Corpus, OfGgufHasNoFindings) { fuzz::run_corpus("gguf", fuzz::run_gguf, 10); }
TEST(Corpus, OfJsonLinesHasNoFindings) { fuzz::run_corpus("jsonl", fuzz::run_jsonl, 11); }
TEST(Corpus, OfYamlHasNoFindings) { fuzz::run_corpus("yaml", fuzz::run_yaml, 10); }

}  // namespace
}  // namespace quiver::io
