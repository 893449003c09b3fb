// What the headers of the folders over libtorch call thread-safe, by several threads at once: make tsan looks on.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>

#include "quiver/adapters/lora_update.h"
#include "quiver/base/random.h"
#include "quiver/io/folder.h"
#include "quiver/library/library.h"
#include "quiver/nn/linear.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/group_table.h"
#include "quiver/routing/recorder.h"
#include "quiver/routing/routed_update.h"
#include "quiver/testing/draw.h"
#include "quiver/train/task_predictor.h"
#include "tests/threads/support.h"

namespace quiver {
namespace {

namespace fs = std::filesystem;
using testing::draw;
using testing::kThreads;
using testing::on_threads;

/// libtorch's own threads synchronise where ThreadSanitizer does not see it: each of ours computes alone.
class TorchThreads : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(TorchThreads, AProjectionLaysItsTransposeOutOnce) {
  const auto weight = draw({24, 32}, 1), dy = draw({5, 24}, 2), x = draw({5, 32}, 3);
  const nn::Linear projection(weight);
  on_threads([&](std::size_t) {
    EXPECT_TRUE(torch::allclose(projection.weight().product_transposed(dy, {}), dy.mm(weight), 1e-4, 1e-5));
    EXPECT_TRUE(torch::allclose(projection.forward(x), x.mm(weight.t()), 1e-4, 1e-5));
  });
}

TEST_F(TorchThreads, ARoutedLayerAndItsRecorderServeAll) {
  std::vector<adapters::LoraPair> pairs;
  for (std::uint64_t n = 0; n < 5; ++n) pairs.emplace_back(draw({2, 32}, 10 + n), draw({24, 2}, 20 + n), 2);
  routing::RoutingRecorder recorder;
  const auto arrow = std::make_shared<routing::ArrowRouter>(draw({5, 32}, 4), routing::ArrowOptions{.top_k = 2});
  const auto router = std::make_shared<routing::RecordingRouter>(arrow, "path", &recorder);
  const nn::Linear below(draw({24, 32}, 1));
  const auto layer = below.with(std::make_shared<routing::RoutedUpdate>(below, pairs, router, routing::Combine::kParams));
  const auto x = draw({9, 32}, 5);
  const torch::NoGradGuard no_grad;
  const auto expected = layer.forward(x);
  recorder.clear();
  on_threads([&](std::size_t thread) {
    const torch::NoGradGuard mine;
    recorder.set_tag("all");
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(layer.forward(x).equal(expected)) << thread;
    recorder.usage();
  });
  std::int64_t tokens = 0;
  for (const auto& [tag, by_path] : recorder.usage()) {
    for (const auto& [path, usage] : by_path) tokens += usage.num_tokens;
  }
  EXPECT_EQ(tokens, static_cast<std::int64_t>(kThreads) * 5 * 9);
}

TEST_F(TorchThreads, ALibraryIsMadeByOneAndOpenedByAll) {
  const auto folder = fs::path(::testing::TempDir()) / ("quiver-threads-" + std::to_string(::getpid()));
  io::remove_tree(folder);
  fs::create_directories(folder);
  on_threads([&](std::size_t) {
    EXPECT_EQ(library::Library::open_or_create(folder / "library", {.name = "base", .fingerprint = "f00d"}).base().name, "base");
  });
  io::remove_tree(folder);
}

TEST_F(TorchThreads, CopiesOfALibraryNoteWhatCannotBeKept) {
  const auto folder = fs::path(::testing::TempDir()) / ("quiver-threads-fault-" + std::to_string(::getpid()));
  io::remove_tree(folder);
  const auto library = library::Library::create(folder, {.name = "base", .fingerprint = "f00d"});
  fs::remove_all(folder / "artifacts");
  io::write_file_atomic(folder / "artifacts", "in the way");
  on_threads([copy = library](std::size_t) {
    const auto mine = copy;
    mine.store_artifact("0123456789abcdef", {{"one", torch::ones({1})}}, nullptr);
    EXPECT_FALSE(mine.cache_fault().empty());
  });
  io::remove_tree(folder);
}

TEST_F(TorchThreads, ATaskPredictorServesAll) {
  const std::vector<std::int64_t> labels = {0, 1, 0, 1};
  const auto features = torch::tensor({{1.0, 0.0}, {0.0, 1.0}, {0.9, 0.1}, {0.2, 0.8}}, torch::kDouble);
  const auto predictor = train::train_task_predictor(features, labels, 2, {});
  const auto expected = predictor.probabilities(features);
  on_threads([&](std::size_t) { EXPECT_TRUE(predictor.probabilities(features).equal(expected)); });
}

TEST_F(TorchThreads, ATableGivesGroupsWhileOthersReadTheirs) {
  routing::GroupTable table(3);
  on_threads([&](std::size_t thread) {
    RandomStream random(thread, "rows");
    std::vector<routing::GroupLease> held(6);
    std::vector<float> expected(held.size());
    for (int i = 0; i < 500; ++i) {
      const auto place = random.below(held.size());
      expected[place] = static_cast<float>(random.below(12));  // threads hold equal rows, too
      held[place] = table.hold(std::vector<float>(3, expected[place]));
      const auto rows = table.rows();
      for (std::size_t n = 0; n < held.size(); ++n) {
        EXPECT_TRUE(held[n] == nullptr || rows.at(*held[n])[2] == expected[n]) << thread;
      }
    }
    EXPECT_LE(table.num_groups(), 13);
  });
  EXPECT_EQ(table.num_groups(), 1);
}

}  // namespace
}  // namespace quiver
