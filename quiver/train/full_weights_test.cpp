#include "quiver/train/full_weights.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/train/test_support.h"
#include "quiver/train/trainer.h"

namespace quiver::train {
namespace {

TEST(FullWeights, GradientEqualsAutograd) {
  for (const auto& [dtype, tolerance] :
       {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4), std::pair(torch::kBFloat16, 6e-2)}) {
    SCOPED_TRACE(dtype);
    const auto base = tiny(dtype);
    FullWeights weights("full", base.linears(), torch::kCPU, dtype);
    const model::TrainedModel adapted(base, weights.attach(base.linears()));
    const auto batch = forest::build_batch(nested_sequences(3, 4), {.min_shared_tokens = 1});
    const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    const auto gradient = weights.gradient().clone();
    const auto leaf = weights.values().clone().requires_grad_();
    const auto named = weights.weights(leaf);
    testing::LinearDefinitions definitions;
    for (const auto& [path, linear] : base.linears()) {
      const auto bias = linear.bias().defined() ? named.at(path + ".bias") : torch::Tensor();
      definitions.emplace(path, [weight = named.at(path + ".weight"), bias](const auto& x, const auto&, const auto&) {
        return testing::plain_linear(x, weight.to(torch::kDouble), bias);
      });
    }
    const auto expected = testing::reference_loss(base, batch.forest, loss_targets(batch, LossMean::kExamples), definitions);
    expected.backward();
    EXPECT_NEAR(loss, expected.item<double>(), tolerance * loss);
    EXPECT_LT((gradient - leaf.grad()).norm().item<double>(), tolerance * gradient.norm().item<double>());
  }
}

TEST(FullWeights, BeginAsTheModelAndLearn) {
  const auto base = tiny();
  const auto examples = nested_sequences(3, 2);
  const auto batch = forest::build_batch(examples);
  TrainOptions options{.epochs = 10, .batch_size = 8};
  options.optimizer.learning_rate = 1e-3;
  const auto weights = std::make_shared<FullWeights>("full", base.linears(), torch::kCPU, torch::kFloat);
  Trainer trainer(base, weights, examples, options);
  while (!trainer.is_done()) trainer.run_step();
  const auto targets = loss_targets(batch, LossMean::kExamples);
  const double before = model::loss_of(base, model::forest_rows(batch.forest), targets);
  EXPECT_LT(trainer.stats().losses.back(), 0.8 * before);
  FullWeights again("full", base.linears(), torch::kCPU, torch::kFloat);
  const model::TrainedModel same(base, again.attach(base.linears()));
  EXPECT_NEAR(model::loss_of(same.model(), model::forest_rows(batch.forest), targets), before, 1e-5);
}

}  // namespace
}  // namespace quiver::train
