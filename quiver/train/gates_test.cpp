#include "quiver/train/gates.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/lora_update.h"
#include "quiver/train/test_support.h"
#include "quiver/train/trainer.h"

namespace quiver::train {
namespace {

/// The pass by rows against autograd through the definition.
TEST(Gates, GradientEqualsAutograd) {
  for (const auto& [dtype, tolerance] : {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4)}) {
    SCOPED_TRACE(dtype);
    const auto base = tiny(dtype);
    const auto adapter = random_adapter(base, 3);
    Gates gates(adapter, torch::kCPU, dtype);
    const model::TrainedModel adapted(base, gates.attach(base.linears()));
    RandomStream random(1, "gates");
    const torch::NoGradGuard no_grad;
    gates.values().copy_(tensor::uniform(gates.values().sizes(), 1, random));
    gates.lay_out({});
    const auto batch = forest::build_batch(nested_sequences(3, 4), {.min_shared_tokens = 1});
    const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    const auto gradient = gates.gradient().clone();
    const torch::AutoGradMode with_grad(true);
    const auto leaf = gates.values().to(torch::kDouble).clone().requires_grad_();
    testing::LinearDefinitions definitions;
    std::int64_t offset = 0;
    for (const auto& [path, pair] : adapter.pairs) {
      definitions.emplace(path, testing::gated_definition(pair, leaf.narrow(0, offset, pair.in_features())));
      offset += pair.in_features();
    }
    const auto expected = testing::reference_loss(base, batch.forest, loss_targets(batch, LossMean::kExamples), definitions);
    expected.backward();
    EXPECT_NEAR(loss, expected.item<double>(), tolerance * loss);
    EXPECT_GT(gradient.norm().item<double>(), 1e-4);
    EXPECT_LT((gradient - leaf.grad()).norm().item<double>(), tolerance * gradient.norm().item<double>());
  }
}

/// A gate of 0 is half open: half the adapter.
TEST(Gates, StartHalfOpen) {
  const auto base = tiny(torch::kDouble);
  auto adapter = random_adapter(base, 3);
  Gates gates(adapter, torch::kCPU, torch::kDouble);
  const model::TrainedModel adapted(base, gates.attach(base.linears()));
  for (auto& [path, pair] : adapter.pairs)
    pair = adapters::LoraPair(pair.lora_a(), pair.lora_b() / 2, pair.alpha()).to(torch::kCPU, torch::kDouble);
  const auto half = base.with_linears(adapters::attach(base.linears(), adapter));
  const auto batch = forest::build_batch(nested_sequences(2, 4));
  const auto targets = loss_targets(batch, LossMean::kExamples);
  EXPECT_NEAR(model::loss_of(adapted.model(), model::forest_rows(batch.forest), targets),
              model::loss_of(half, model::forest_rows(batch.forest), targets), 1e-9);
}

TEST(Gates, TrainingOpensThemWhereTheAdapterHelps) {
  const auto base = tiny();
  const auto examples = nested_sequences(3, 2);
  TrainOptions options{.epochs = 30, .batch_size = 8};
  options.optimizer.learning_rate = 1e-2;
  Trainer adapter(base, adapters::initial_adapter("toy", {}, base.linears(), 1), examples, options);
  while (!adapter.is_done()) adapter.run_step();
  const auto gates = std::make_shared<Gates>(adapter.adapter(), torch::kCPU);
  Trainer trainer(base, gates, examples, options);
  while (!trainer.is_done()) trainer.run_step();
  EXPECT_LT(trainer.stats().losses.back(), 0.9 * trainer.stats().losses.front());
  const auto learnt = gates->gates(trainer.result());
  EXPECT_EQ(learnt.size(), adapter.adapter().pairs.size());
  for (const auto& [path, gate] : learnt) EXPECT_EQ(gate.numel(), adapter.adapter().pairs.at(path).in_features()) << path;
}

}  // namespace
}  // namespace quiver::train
