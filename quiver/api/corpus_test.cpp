// The fuzz targets of the API as ordinary tests.
#include "fuzz/api.h"
#include "fuzz/run_corpus.h"
#include "quiver/base/random.h"

namespace quiver::api {
namespace {

TEST(Corpus, OfBodiesHasNoFindings) { fuzz::run_corpus("api_body", fuzz::run_api_body, 8); }
TEST(Corpus, OfStopStringsHasNoFindings) { fuzz::run_corpus("stop_matcher", fuzz::run_stop_matcher, 4); }
TEST(Corpus, OfEventsHasNoFindings) { fuzz::run_corpus("event_writer", fuzz::run_event_writer, 4, /*num_mutations=*/100); }

/// Runs a target on random inputs of up to 300 bytes.
void run_on_random_bytes(const char* name, fuzz::RunParser run, int num_rounds) {
  RandomStream random(1, name);
  for (int round = 0; round < num_rounds; ++round) {
    std::string bytes;
    const std::uint64_t most = 1 + random.below(300), letters = random.below(2) == 0 ? 256 : 3;
    for (std::uint64_t i = 0; i < most; ++i) bytes += static_cast<char>(random.below(letters));
    ASSERT_NO_THROW(run(std::as_bytes(std::span(bytes)))) << "round " << round;
  }
}

TEST(StopMatcher, OfRandomBytesAgrees) { run_on_random_bytes("stop_matcher", fuzz::run_stop_matcher, 3000); }
TEST(Events, OfRandomTokensAddUp) { run_on_random_bytes("event_writer", fuzz::run_event_writer, 300); }

}  // namespace
}  // namespace quiver::api
