#include "quiver/train/trainer.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/train/test_support.h"

namespace quiver::train {
namespace {

struct LossAndGradient {
  double loss = 0;
  torch::Tensor gradient;
};

/// As training does it.
LossAndGradient run_batch(const model::Model& base, OneAdapter& trained, const forest::ForestBatch& batch, LossMean mean) {
  trained.gradient().zero_();
  const model::TrainedModel adapted(base, trained.attach(base.linears()));
  const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, mean));
  return {loss, trained.gradient().clone()};
}

/// By the definition, with autograd.
LossAndGradient run_plainly(const model::Model& base, OneAdapter& trained, const forest::ForestBatch& batch, LossMean mean) {
  const auto result = reference_gradient(base, trained, batch.forest, loss_targets(batch, mean));
  return {result.loss, result.gradient};
}

class ForestDepth : public ::testing::TestWithParam<int> {};

/// A batch with shared prefixes against its examples run one by one: loss and every LoRA gradient.
void expect_forest_equals_one_by_one(int depth, torch::Dtype dtype, double tolerance) {
  const auto base = tiny(dtype);
  OneAdapter trained(random_adapter(base, 5), torch::kCPU, tensor::compute_dtype(dtype));
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    SCOPED_TRACE(seed);
    const auto sequences = nested_sequences(depth, seed);
    const auto batch = forest::build_batch(sequences, {.min_shared_tokens = 1});
    const auto together = run_batch(base, trained, batch, LossMean::kExamples);
    LossAndGradient alone{0, torch::zeros_like(trained.values(), torch::kDouble)};
    for (const auto& sequence : sequences) {
      const auto one =
          run_plainly(base, trained, forest::build_batch(std::span(&sequence, 1), {.share_prefixes = false}), LossMean::kExamples);
      alone.loss += one.loss / static_cast<double>(sequences.size());
      alone.gradient += one.gradient / static_cast<double>(sequences.size());
    }
    if (depth > 1) {  // something was shared
      EXPECT_LT(batch.forest.num_rows(), batch.num_tokens - static_cast<std::int64_t>(sequences.size()));
    }
    EXPECT_NEAR(together.loss, alone.loss, tolerance * std::abs(alone.loss));
    std::int64_t offset = 0;
    for (const auto& [path, pair] : trained.live().pairs) {
      for (const auto& factor : {pair.lora_a(), pair.lora_b()}) {
        const auto a = together.gradient.narrow(0, offset, factor.numel()), b = alone.gradient.narrow(0, offset, factor.numel());
        EXPECT_LE((a - b).norm().item<double>(), tolerance * b.norm().item<double>()) << path << " seed " << seed;
        offset += factor.numel();
      }
    }
  }
}

TEST_P(ForestDepth, LossAndGradientsEqualThoseOneByOneInFloat32) { expect_forest_equals_one_by_one(GetParam(), torch::kFloat, 1e-4); }
TEST_P(ForestDepth, LossAndGradientsEqualThoseOneByOneInFloat64) { expect_forest_equals_one_by_one(GetParam(), torch::kDouble, 1e-9); }

TEST_P(ForestDepth, LogitsEqualThoseOneByOne) {
  for (const auto& [dtype, tolerance] : {std::pair(torch::kFloat, 1e-4), std::pair(torch::kDouble, 1e-9)}) {
    SCOPED_TRACE(dtype);
    const torch::NoGradGuard no_grad;
    const auto base = tiny(dtype);
    const auto sequences = nested_sequences(GetParam(), 11);
    const auto batch = forest::build_batch(sequences, {.min_shared_tokens = 1});
    const auto logits = model::hidden_of_all(base, model::forest_rows(batch.forest)).matmul(base.head().linear.weight().dense().t());
    std::size_t next = 0;
    for (const auto& sequence : sequences) {
      SCOPED_TRACE(::testing::PrintToString(sequence.tokens));
      forest::TokenForest alone;
      alone.add_segment(forest::kNoParent, sequence.tokens);
      const auto expected = testing::reference_hidden(base, alone).matmul(base.head().linear.weight().dense().to(torch::kDouble).t());
      for (auto p = static_cast<std::int64_t>(sequence.tokens.size()) - sequence.num_targets;
           p < static_cast<std::int64_t>(sequence.tokens.size()); ++p) {
        SCOPED_TRACE(p);
        const auto difference = (logits[batch.targets.at(next++).row] - expected[p - 1]).abs().max().item<double>();
        EXPECT_LT(difference, tolerance * expected.abs().max().item<double>());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Depths, ForestDepth, ::testing::Values(1, 2, 3, 4));

class PeftTraining : public ::testing::TestWithParam<const char*> {};

/// Twenty optimiser steps from PEFT's initial adapter over the same batches.
TEST_P(PeftTraining, GivesItsLossesGradientsAndWeights) {
  const fs::path folder = kGolden / "training" / GetParam();
  const auto run = io::read_json_file(folder / "run.json");
  const auto base = tiny(torch::kFloat, run.at("base").get<std::string>());
  OneAdapter trained(adapters::load_peft(folder / "initial"), torch::kCPU);
  OptimizerOptions options{
      .learning_rate = run.at("learning_rate"), .weight_decay = run.at("weight_decay"), .max_grad_norm = run.at("clip_norm")};
  AdamW optimizer(options, trained.values());
  const auto mean = run.at("loss") == "example_mean" ? LossMean::kExamples : LossMean::kTokens;
  const auto gradients = tensor::load_tensors(folder / "gradients.safetensors");
  const auto expect_tensors = [&](const tensor::TensorMap& golden, const std::string& prefix, const torch::Tensor& flat, double tolerance) {
    std::int64_t offset = 0;
    for (const auto& [path, pair] : trained.live().pairs) {
      std::vector<std::pair<const char*, torch::Tensor>> tensors = {{"lora_A", pair.lora_a()}, {"lora_B", pair.lora_b()}};
      if (pair.magnitude().defined()) tensors.emplace_back("lora_magnitude_vector", pair.magnitude());
      for (const auto& [name, factor] : tensors) {
        const auto& expected = golden.at(prefix + "base_model.model.model." + path + "." + name + ".weight");
        const auto actual = flat.narrow(0, offset, factor.numel()).view(factor.sizes());
        EXPECT_LT((actual - expected).abs().max().item<double>(), tolerance) << prefix << path << " " << name;
        offset += factor.numel();
      }
    }
  };
  const std::int64_t num_steps = run.at("num_steps");
  for (std::int64_t step = 0; step < num_steps; ++step) {
    SCOPED_TRACE(step);
    std::vector<forest::Sequence> sequences;
    for (const auto& example : run.at("batches").at(static_cast<std::size_t>(step))) {
      sequences.push_back({example.at("ids").get<std::vector<std::int32_t>>(), example.at("num_labels").get<std::int64_t>()});
    }
    const auto& golden = run.at("steps").at(static_cast<std::size_t>(step));
    const double rate = learning_rate(options, step, num_steps);
    EXPECT_NEAR(rate, golden.at("learning_rate").get<double>(), 1e-12);
    const auto [loss, gradient] = run_batch(base, trained, forest::build_batch(sequences), mean);
    EXPECT_NEAR(loss, golden.at("loss").get<double>(), 1e-4) << "step " << step;
    if (step == 0) expect_tensors(gradients, "step0.", gradient, 1e-4);
    if (step == num_steps - 1) expect_tensors(gradients, "step19.", gradient, 1e-4);
    const double norm = optimizer.step(trained.values(), trained.gradient(), rate);
    EXPECT_NEAR(norm, golden.at("grad_norm").get<double>(), 1e-4 * norm) << "step " << step;
  }
  expect_tensors(tensor::load_tensors(folder / "final.safetensors"), "", trained.values(), 5e-4);
}

INSTANTIATE_TEST_SUITE_P(Cases, PeftTraining, ::testing::Values("example-mean", "token-mean", "sharded", "dora"));

Trainer make_trainer(const model::Model& base, double dropout = 0, double rate = 1e-2, bool use_dora = false) {
  TrainOptions options{.epochs = 3, .batch_size = 4};
  options.optimizer.learning_rate = rate;
  return Trainer(base, adapters::initial_adapter("toy", {.dropout = dropout, .use_dora = use_dora}, base.linears(), 1),
                 nested_sequences(3, 2), options);
}

void expect_same(const adapters::LoraAdapter& a, const adapters::LoraAdapter& b) {
  for (const auto& [path, pair] : a.pairs) {
    EXPECT_TRUE(std::ranges::equal(pair.tensors(), b.pairs.at(path).tensors(), torch::equal)) << path;
  }
}

TEST(Trainer, ResumedEqualsUninterruptedBitForBit) {
  const auto base = tiny();
  const auto path = fs::temp_directory_path() / "quiver-trainer-test.safetensors";
  for (const auto& [dropout, use_dora] : {std::pair(0.0, false), std::pair(0.3, false), std::pair(0.0, true)}) {
    SCOPED_TRACE(format("dropout {}, use_dora {}", dropout, use_dora));
    auto whole = make_trainer(base, dropout, 1e-2, use_dora);
    while (!whole.is_done()) whole.run_step();
    for (const int stop : {1, 4}) {
      SCOPED_TRACE(stop);
      auto first = make_trainer(base, dropout, 1e-2, use_dora);
      for (int i = 0; i < stop; ++i) first.run_step();
      first.save(path, "key");
      auto second = make_trainer(base, dropout, 1e-2, use_dora);
      EXPECT_FALSE(second.restore(path, "another key"));
      ASSERT_TRUE(second.restore(path, "key"));
      EXPECT_EQ(second.step(), stop);
      while (!second.is_done()) second.run_step();
      expect_same(whole.adapter(), second.adapter());
      EXPECT_EQ(whole.stats().losses, second.stats().losses);
      EXPECT_EQ(whole.stats().tokens, second.stats().tokens);
    }
  }
  fs::remove(path);
}

TEST(Trainer, SharingPrefixesChangesNothingButTheRowsComputed) {
  const auto base = tiny();
  TrainOptions options{.epochs = 2, .batch_size = 8};
  options.optimizer.learning_rate = 1e-3;
  const auto run = [&](bool share) {
    options.share_prefixes = share;
    Trainer trainer(base, adapters::initial_adapter("toy", {}, base.linears(), 1), nested_sequences(4, 2), options);
    while (!trainer.is_done()) trainer.run_step();
    return trainer.stats();
  };
  const auto shared = run(true), plain = run(false);
  EXPECT_LT(shared.rows, plain.rows);
  EXPECT_EQ(shared.tokens, plain.tokens);
  for (std::size_t i = 0; i < shared.losses.size(); ++i) EXPECT_NEAR(shared.losses[i], plain.losses[i], 1e-4) << i;
}

TEST(Trainer, PiecesOfABatchAndActivationsComputedTwiceGiveTheSameGradient) {
  const auto base = tiny();
  const auto run = [&](std::int64_t micro_batch_tokens, bool checkpoint_activations, LossMean mean) {
    TrainOptions options{.epochs = 2,
                         .batch_size = 11,
                         .loss_mean = mean,
                         .micro_batch_tokens = micro_batch_tokens,
                         .checkpoint_activations = checkpoint_activations};
    options.optimizer.learning_rate = 1e-2;
    Trainer trainer(base, adapters::initial_adapter("toy", {.target_modules = {"all-linear"}}, base.linears(), 1), nested_sequences(3, 2),
                    options);
    while (!trainer.is_done()) trainer.run_step();
    return std::pair(trainer.stats(), trainer.adapter());
  };
  for (const auto mean : {LossMean::kExamples, LossMean::kTokens}) {
    SCOPED_TRACE(static_cast<int>(mean));
    const auto [plain, adapter] = run(0, false, mean);
    const auto [again, same] = run(0, true, mean);
    EXPECT_EQ(plain.losses, again.losses);
    expect_same(adapter, same);
    const auto [pieces, near] = run(30, true, mean);
    EXPECT_GT(pieces.rows, plain.rows);
    EXPECT_EQ(pieces.tokens, plain.tokens);
    ASSERT_EQ(pieces.losses.size(), plain.losses.size());
    for (std::size_t i = 0; i < plain.losses.size(); ++i) EXPECT_NEAR(pieces.losses[i], plain.losses[i], 1e-4) << i;
  }
}

TEST(Trainer, PiecesHoldEachSequenceOnceWithinTheirTokens) {
  const auto sequences = nested_sequences(4, 3);
  const auto pieces = split_batch(sequences, 40, true);
  EXPECT_GT(pieces.size(), 3u);
  std::multiset<std::vector<std::int32_t>> expected, actual;
  for (const auto& sequence : sequences) expected.insert(sequence.tokens);
  for (const auto& piece : pieces) {
    EXPECT_LE(forest::build_batch(piece).forest.num_rows(), 40);
    for (const auto& sequence : piece) actual.insert(sequence.tokens);
  }
  EXPECT_EQ(actual, expected);
  EXPECT_ERROR(split_batch(sequences, 3, true), ErrorKind::kUsage, "an example takes ");
}

TEST(Trainer, KeepsTheBestOfItsValidationsAndLosesPatience) {
  const auto base = tiny();
  const auto examples = nested_sequences(3, 2);
  const auto make = [&](std::vector<forest::Sequence> validation, std::int64_t patience) {
    TrainOptions options{.epochs = 20, .batch_size = 8, .validate_every = 2, .patience = patience};
    options.optimizer.learning_rate = 3e-2;
    return Trainer(base, adapters::initial_adapter("toy", {}, base.linears(), 1), examples, options, std::move(validation));
  };
  const auto unlike = nested_sequences(3, 9);  // learning the others makes these worse in the end
  auto trainer = make(unlike, 3);
  const auto path = fs::temp_directory_path() / "quiver-trainer-validation.safetensors";
  for (int i = 0; i < 5; ++i) trainer.run_step();
  trainer.save(path, "key");
  auto resumed = make(unlike, 3);
  ASSERT_TRUE(resumed.restore(path, "key"));
  while (!trainer.is_done()) trainer.run_step();
  while (!resumed.is_done()) resumed.run_step();
  const auto& stats = trainer.stats();
  EXPECT_LT(trainer.step(), trainer.num_steps());
  EXPECT_EQ(stats.validations.back().step, stats.best_step + 2 * 3);
  const auto best = std::ranges::min_element(stats.validations, {}, &TrainStats::Validation::loss);
  EXPECT_EQ(best->step, stats.best_step);
  EXPECT_EQ(resumed.step(), trainer.step());
  expect_same(trainer.adapter(), resumed.adapter());
  // The result is the adapter of that step: its loss on the validation examples is the one noted.
  const auto definitions = testing::adapter_definitions(trainer.adapter());
  double loss = 0;
  for (const auto& sequence : unlike) {
    const torch::NoGradGuard no_grad;
    const auto batch = forest::build_batch(std::span(&sequence, 1));
    loss += testing::reference_loss(base, batch.forest, loss_targets(batch, LossMean::kExamples), definitions).item<double>() /
            static_cast<double>(unlike.size());
  }
  EXPECT_NEAR(loss, best->loss, 1e-4);
  fs::remove(path);
}

TEST(Trainer, RefusesABatchThatDoesNotFitIntoMemory) {
  const auto base = tiny();
  TrainOptions options{.batch_size = 64, .memory_limit = 1 << 20};
  const auto initial = adapters::initial_adapter("toy", {}, base.linears(), 1);
  EXPECT_ERROR(Trainer(base, initial, nested_sequences(4, 2), options), ErrorKind::kUsage, "1 MiB are left; give `micro_batch_tokens`");
  options.memory_limit = std::int64_t{1} << 30;
  Trainer(base, initial, nested_sequences(4, 2), options);
}

TEST(Trainer, StopsWhenTheLossDiverges) {
  const auto base = tiny();
  auto trainer = make_trainer(base, 0, 1e30);
  const auto run = [&] {
    while (!trainer.is_done()) trainer.run_step();
  };
  EXPECT_ERROR(run(), ErrorKind::kUsage, "lower the learning rate");
  EXPECT_EQ(trainer.stats().losses.size(), static_cast<std::size_t>(trainer.step()));  // the step that failed left nothing
}

TEST(AdamW, AGradientThatIsNotFiniteChangesNothing) {
  auto values = torch::ones({3});
  AdamW optimizer({}, values);
  auto gradient = torch::tensor({1.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f});
  EXPECT_TRUE(std::isnan(optimizer.step(values, gradient, 0.1)));
  EXPECT_TRUE(values.equal(torch::ones({3})));
  EXPECT_EQ(optimizer.state().at("steps").item<std::int64_t>(), 0);
  EXPECT_TRUE(optimizer.state().at("first").equal(torch::zeros({3})));
}

TEST(Trainer, RefusesWhatItCannotTrain) {
  const auto base = tiny();
  const auto initial = adapters::initial_adapter("toy", {}, base.linears(), 1);
  EXPECT_ERROR(Trainer(base, initial, {}, {}), ErrorKind::kUsage, "adapter 'toy' has no training examples");
  EXPECT_ERROR(Trainer(base, initial, nested_sequences(1, 1), {.epochs = 0}), ErrorKind::kUsage, "epochs is 0; expected 1 or more");
  EXPECT_ERROR(Trainer(base, initial, nested_sequences(1, 1), {.batch_size = 0}), ErrorKind::kUsage, "batch size is 0; expected 1 or more");
  forest::Sequence long_one{std::vector<std::int32_t>(static_cast<std::size_t>(base.spec().max_positions + 1), 3), 1};
  EXPECT_ERROR(Trainer(base, initial, {long_one}, {}), ErrorKind::kUsage, "sequence 0 of the training examples of adapter 'toy' has");
  EXPECT_ERROR(Trainer(base, initial, {{{3, 4, 5, 6, 7}, 1}}, {.micro_batch_tokens = 3}), ErrorKind::kUsage,
               "an example takes 4 tokens, a piece of a batch at most 3; raise `micro_batch_tokens`");
  const std::vector<forest::Sequence> named = {{.tokens = {3, 4, 5, 6, 7}, .num_targets = 1, .name = "t.jsonl:3 (task 't')"}};
  EXPECT_ERROR(Trainer(base, initial, named, {.micro_batch_tokens = 3}), ErrorKind::kUsage, "t.jsonl:3 (task 't') takes 4 tokens");
  Trainer(base, initial, {{{3, 4, 5, 6, 7}, 1}}, {.micro_batch_tokens = 4});
}

TEST(LearningRate, FollowsItsSchedule) {
  OptimizerOptions options{.learning_rate = 2, .schedule = Schedule::kCosine, .warmup_fraction = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(options, 5, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 10, 100), 2);
  EXPECT_DOUBLE_EQ(learning_rate(options, 40, 100), 1.5);  // a third of the way: (1 + cos 60°) / 2
  EXPECT_NEAR(learning_rate(options, 99, 100), 2 * 3.046e-4, 1e-6);
  options.schedule = Schedule::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(options, 5, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 99, 100), 2);
}

TEST(AdamW, MovesLoraBFasterByTheRatioOfLoraPlus) {
  const auto base = tiny();
  for (const double ratio : {1.0, 16.0}) {
    FlatParameters parameters(random_adapter(base, 5), torch::kCPU, torch::kDouble);
    AdamW optimizer({.weight_decay = 0.1}, parameters.values(), parameters.rate_factors(ratio));
    const auto before = parameters.snapshot();
    parameters.gradient().fill_(0.5);
    optimizer.step(parameters.values(), parameters.gradient(), 1e-3);  // a first step goes by the rate, whatever the gradient
    for (const auto& [path, pair] : parameters.adapter().pairs) {
      const auto& old = before.pairs.at(path);
      const auto expect_moved = [&](const torch::Tensor& now, const torch::Tensor& then, double rate) {
        EXPECT_TRUE(torch::allclose(now.detach(), then * (1 - rate * 0.1) - rate, 1e-6, 1e-7)) << path;
      };
      expect_moved(pair.lora_a(), old.lora_a(), 1e-3);
      expect_moved(pair.lora_b(), old.lora_b(), 1e-3 * ratio);
    }
  }
}

TEST(LearningRate, WarmsUpAndDecaysLinearly) {
  const OptimizerOptions options{.learning_rate = 1, .warmup_fraction = 0.06};
  EXPECT_DOUBLE_EQ(learning_rate(options, 0, 100), 0);
  EXPECT_DOUBLE_EQ(learning_rate(options, 3, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(options, 6, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 53, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(options, 99, 100), 1.0 / 94);
  EXPECT_DOUBLE_EQ(learning_rate({.learning_rate = 1, .warmup_fraction = 0}, 0, 1), 1);
}

}  // namespace
}  // namespace quiver::train
