// The fuzz target of train as an ordinary test.
#include "fuzz/checkpoint.h"
#include "fuzz/run_corpus.h"

namespace quiver::train {
namespace {

TEST(Corpus, OfCheckpointsHasNoFindings) { fuzz::run_corpus("checkpoint", fuzz::run_checkpoint, 15); }

TEST(CheckpointFile, FiguresOfASoundOneAreRead) {
  const io::MappedFile file("fuzz/corpus/checkpoint/plain");
  const auto stats = checked_stats(io::SafetensorsView::parse(file.bytes(), "plain"), fuzz::kFuzzedShape);
  EXPECT_EQ(stats.steps, 2);
  EXPECT_EQ(stats.tokens, 100);
  EXPECT_EQ(stats.rows, 80);
  EXPECT_EQ(stats.seconds, 1.5);
  EXPECT_EQ(stats.losses, (std::vector<double>{0.75, 0.75}));
  ASSERT_EQ(stats.validations.size(), 2);
  EXPECT_EQ(stats.validations[1].loss, 0.25);
  EXPECT_EQ(stats.best_step, 2);
}

}  // namespace
}  // namespace quiver::train
