#include "quiver/recipes/analyse.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>

#include "quiver/adapters/init.h"
#include "quiver/adapters/lora_update.h"
#include "quiver/base/error.h"
#include "quiver/data/encode.h"
#include "quiver/io/folder.h"
#include "quiver/model/decoder.h"
#include "quiver/nn/tap.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

/// Two random adapters of tasks "a0" and "a1" in a library, with test rows.
class AnalyseNorms : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("quiver-analyse-" + std::to_string(::getpid()));
    io::remove_tree(folder_);
    fs::create_directories(folder_ / "tasks");
    auto library = library::Library::open_or_create(folder_ / "library", {base_.lm.spec().name, base_.lm.fingerprint()});
    for (std::uint64_t i = 0; i < 2; ++i) {
      const auto name = format("a{}", i);
      auto made = adapters::initial_adapter(name, {}, base_.lm.linears(), 1);
      std::uint64_t number = 100 * i;
      for (auto& [path, pair] : made.pairs) {
        pair = adapters::LoraPair(pair.lora_a(), testing::draw(pair.lora_b().sizes(), ++number, i == 0 ? 0.1 : 0.2), pair.alpha());
      }
      made.base_model = base_.lm.spec().name;
      made.base_fingerprint = base_.lm.fingerprint();
      library.add(made, {.tasks = {name}});
      adapters_.push_back(std::move(made));
      std::ofstream rows(folder_ / "tasks" / (name + ".jsonl"));
      for (int row = 0; row < 3; ++row) {
        rows << format(R"({{"split":"test","id":"{}","source":"task number {} says {}","target":"yes"}})", row, i, row * 17) << "\n";
      }
    }
    setup_.use.source.library = (folder_ / "library").string();
    setup_.data = folder_ / "tasks";
  }
  void TearDown() override { io::remove_tree(folder_); }

  /// The ratio of one prompt by its definition, every delta_w in full.
  double ratio(const std::string& source, std::size_t own) const {
    auto linears = adapters::attach(base_.lm.linears(), adapters_[own]);
    std::map<std::string, double> ratios;
    std::mutex mutex;
    for (const auto& [path, pair] : adapters_[own].pairs) {
      const auto mine = pair.delta(), other = adapters_[1 - own].pairs.at(path).delta();
      auto& linear = linears.at(path);
      linear = linear.with(std::make_shared<nn::Tap>([&, mine, other, path = path](const torch::Tensor& x, const nn::Rows&) {
        const auto mean_norm = [&x](const torch::Tensor& delta) { return x.matmul(delta.t()).norm(2, {1}).mean().item<double>(); };
        const std::lock_guard lock(mutex);
        ratios[path] = mean_norm(mine) / mean_norm(other);
      }));
    }
    forest::TokenForest forest;
    forest.add_segment(forest::kNoParent, data::encode_prompt(base_.tokenizer, source, 1000));
    model::hidden_of_all(base_.lm.with_linears(linears), model::forest_rows(forest));
    double sum = 0;
    for (const auto& [path, r] : ratios) sum += r / static_cast<double>(ratios.size());
    return sum;
  }

  fs::path folder_;
  NoProgress progress_;
  methods::BaseModel base_ = methods::load_base("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
  std::vector<adapters::LoraAdapter> adapters_;
  AnalysisSetup setup_;
};

TEST_F(AnalyseNorms, AreRatiosOfTheUpdatesNormsWithTheOwnAdapterAtWork) {
  setup_.rows = 3;
  const auto result = analyse_norms(base_, setup_, progress_);
  ASSERT_EQ(result.at("tasks").size(), 2u);
  EXPECT_EQ(result.at("num_samples"), 6);
  for (std::size_t own = 0; own < 2; ++own) {
    SCOPED_TRACE(own);
    const auto& task = result.at("tasks").at(own);
    EXPECT_EQ(task.at("adapter"), adapters_[own].name);
    std::multiset<double> expected, actual;
    for (int row = 0; row < 3; ++row) expected.insert(ratio(format("task number {} says {}", own, row * 17), own));
    for (const double r : task.at("ratios")) actual.insert(r);
    for (auto a = actual.begin(), e = expected.begin(); a != actual.end(); ++a, ++e) EXPECT_NEAR(*a, *e, 1e-3 * *e);
  }
  EXPECT_NEAR(result.at("above_one").get<double>(), 0.5, 1e-12);  // the second adapter's updates are the larger ones
}

TEST_F(AnalyseNorms, NameAnAdapterOfOtherTargetModules) {
  auto library = library::Library::open(folder_ / "library");
  auto narrow = adapters::initial_adapter("narrow", {.target_modules = {"q_proj"}}, base_.lm.linears(), 1);
  narrow.base_model = base_.lm.spec().name;
  narrow.base_fingerprint = base_.lm.fingerprint();
  library.add(narrow, {.tasks = {"a0"}});
  EXPECT_ERROR(analyse_norms(base_, setup_, progress_), ErrorKind::kMismatch,
               "adapter 'a0' adapts 'layers.0.self_attn.k_proj' and adapter 'narrow' does not");
  setup_.use.source.names = {"a0", "narrow"};
  setup_.use.source.kind.clear();
  EXPECT_ERROR(analyse_norms(base_, setup_, progress_), ErrorKind::kMismatch, "and adapter 'narrow' does not");
}

TEST_F(AnalyseNorms, NeedTwoAdapters) {
  setup_.use.source.names = {"a0"};
  EXPECT_ERROR(analyse_norms(base_, setup_, progress_), ErrorKind::kUsage, "norms are compared between two adapters or more; library");
}

TEST_F(AnalyseNorms, RoutingOfTwoAdaptersGivesSharesThatSumToOne) {
  setup_.use.method = {.name = "arrow", .options = {{"top_k", 1}}};
  const auto result = analyse_routing(base_, setup_, progress_);
  EXPECT_EQ(result.at("num_samples"), 6);
  EXPECT_NEAR(result.at("mean").at("entropy").get<double>(), 0, 1e-9);  // one adapter a token
  EXPECT_NEAR(result.at("mean").at("margin").get<double>(), 1, 1e-6);
  const double share = result.at("tasks").at(0).at("true_share");
  EXPECT_GE(share, 0);
  EXPECT_LE(share, 1);
  setup_.use.method = {.name = "mean"};
  EXPECT_ERROR(analyse_routing(base_, setup_, progress_), ErrorKind::kUsage, "method 'mean' chooses nothing by token or prompt");
}

}  // namespace
}  // namespace quiver::recipes
