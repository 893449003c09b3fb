// The pass that training runs against its definition, autograd through Llama::hidden.
#include "quiver/model/forest_pass.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/row_parts.h"
#include "quiver/train/test_support.h"
#include "quiver/train/trainer.h"

namespace quiver::train {
namespace {

/// Several threads whatever the machine has, so that batches are divided.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

forest::ForestBatch batch_of(int trees) {
  std::vector<forest::Sequence> sequences;
  for (int t = 0; t < trees; ++t) {
    for (auto& sequence : nested_sequences(4, static_cast<std::uint64_t>(t))) sequences.push_back(std::move(sequence));
  }
  return forest::build_batch(sequences, {.min_shared_tokens = 1});
}

struct Result {
  double loss = 0;
  torch::Tensor gradient;
};

/// Loss and gradient of an adapter with dropout masks on every other projection if asked for.
Result run(const model::Llama& base, const adapters::LoraAdapter& adapter, const forest::ForestBatch& batch, bool with_masks,
           bool by_autograd) {
  const auto wide = base.placement().dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
  FlatParameters parameters(adapter, torch::kCPU, wide);
  auto projections = base.projections();
  std::uint64_t number = 0;
  for (const auto& [path, pair] : parameters.adapter().pairs) {
    auto layer = std::make_shared<adapters::LoraLinear>(projections.at(path), pair, with_masks ? 0.5 : 0.0);
    if (with_masks && ++number % 2 == 0) {
      auto generator = at::detail::createCPUGenerator(number);
      layer->set_dropout_mask(
          torch::empty({batch.forest.num_rows(), layer->in_features()}).bernoulli_(0.5, generator).mul_(2).to(base.placement().dtype));
    }
    projections.at(path) = layer;
  }
  const auto adapted = base.with_projections(projections);
  if (!by_autograd) {
    const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    return {loss, parameters.gradient()};
  }
  const auto loss = batch_loss(adapted, batch, LossMean::kExamples);
  loss.backward();
  return {loss.item<double>(), parameters.gradient()};
}

TEST(ForestPass, EqualsAutograd) {
  const std::vector<std::vector<std::string>> targets = {{"all-linear"},
                                                         {"q_proj", "k_proj", "v_proj", "o_proj"},
                                                         {"v_proj"},
                                                         {"layers.1.mlp.down_proj"},
                                                         {"layers.1.self_attn.k_proj"},
                                                         {"layers.0.self_attn.o_proj"}};
  for (const int threads : {1, 3}) {
    const Threads guard(threads);
    for (const auto& [dtype, tolerance] :
         {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4), std::pair(torch::kBFloat16, 6e-2)}) {
      const auto base = tiny(dtype);
      for (const int trees : {1, 6}) {
        const auto batch = batch_of(trees);
        if (threads > 1 && trees > 1) {
          ASSERT_GT(backend::RowParts(batch.forest.num_rows()).size(), 1) << "the batch is not divided";
        }
        for (const auto& modules : targets) {
          for (const bool with_masks : {false, true}) {
            const auto adapter = random_adapter(base, 7, modules);
            const auto expected = run(base, adapter, batch, with_masks, true), actual = run(base, adapter, batch, with_masks, false);
            const auto where = ::testing::Message() << modules[0] << ", " << dtype << ", " << trees << " trees, masks " << with_masks;
            EXPECT_NEAR(actual.loss, expected.loss, tolerance * std::abs(expected.loss)) << where;
            ASSERT_GT(expected.gradient.norm().item<double>(), 0) << where;
            EXPECT_LE((actual.gradient - expected.gradient).norm().item<double>(), tolerance * expected.gradient.norm().item<double>())
                << where;
          }
        }
      }
    }
  }
}

TEST(ForestPass, GivesTheHiddenStatesOfTheWantedRows) {
  const torch::NoGradGuard no_grad;
  const Threads guard(3);
  for (const auto& [dtype, tolerance] : {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4)}) {
    SCOPED_TRACE(dtype);
    const auto base = tiny(dtype);
    for (const int trees : {1, 6}) {
      SCOPED_TRACE(trees);
      const auto rows = model::forest_rows(batch_of(trees).forest);
      const auto expected = base.hidden(rows);
      const double bound = tolerance * expected.abs().max().item<double>();
      EXPECT_LT((model::hidden_of_all(base, rows) - expected).abs().max().item<double>(), bound);
      std::vector<std::int64_t> wanted;
      for (std::int64_t r = expected.size(0) - 1; r >= 0; r -= 2) wanted.push_back(r);  // backwards, and one twice
      wanted.push_back(wanted.front());
      EXPECT_LT((model::hidden_of(base, rows, wanted) - expected.index_select(0, torch::tensor(wanted))).abs().max().item<double>(), bound);
      EXPECT_EQ(model::hidden_of(base, rows, {}).size(0), 0);
    }
  }
}

TEST(RowParts, CoverAllRowsOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    SCOPED_TRACE(threads);
    const Threads guard(threads);
    for (const std::int64_t count : {0, 1, 127, 128, 129, 500, 1537, 4099}) {
      SCOPED_TRACE(count);
      const backend::RowParts parts(count);
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      std::atomic<std::int64_t> largest{0};
      parts.for_each([&](const backend::RowPart& part) {
        for (auto r = part.begin; r < part.end; ++r) ++seen[static_cast<std::size_t>(r)];
        auto before = largest.load();
        while (part.size() > before && !largest.compare_exchange_weak(before, part.size())) {
        }
      });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
      EXPECT_LE(largest, 516);
    }
  }
}

TEST(RowParts, RethrowWhatAPartThrows) {
  const Threads guard(3);
  const auto run = [] {
    backend::RowParts(600).for_each([](const backend::RowPart& part) {
      if (part.index == 1) throw std::runtime_error("part");
    });
  };
  EXPECT_THAT(run, ::testing::ThrowsMessage<std::runtime_error>("part"));
}

}  // namespace
}  // namespace quiver::train
