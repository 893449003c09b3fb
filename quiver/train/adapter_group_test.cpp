#include "quiver/train/adapter_group.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/train/test_support.h"

namespace quiver::train {
namespace {

/// Three trainings that differ in name, data, length, rate and validation.
std::vector<Trainer> make_trainers(const model::Model& base, LossMean mean = LossMean::kExamples) {
  std::vector<Trainer> trainers;
  const std::int64_t epochs[] = {3, 5, 2};
  for (std::uint64_t i = 0; i < 3; ++i) {
    TrainOptions options{.epochs = epochs[i],
                         .batch_size = static_cast<std::int64_t>(3 + 2 * i),
                         .loss_mean = mean,
                         .validate_every = 2,
                         .patience = i == 1 ? 2 : 0};
    options.optimizer.learning_rate = 1e-2 * static_cast<double>(i + 1);
    auto initial = adapters::initial_adapter(format("a{}", i), {.target_modules = {"all-linear"}}, base.linears(), 1 + i);
    trainers.emplace_back(base, initial, nested_sequences(3, i), options,
                          i == 1 ? nested_sequences(2, 9) : std::vector<forest::Sequence>{});
  }
  return trainers;
}

class AdapterGroupOf : public ::testing::TestWithParam<LossMean> {};

TEST_P(AdapterGroupOf, GivesEachWhatItWouldGiveAlone) {
  const auto base = tiny(torch::kDouble);
  auto alone = make_trainers(base, GetParam()), together = make_trainers(base, GetParam());
  for (auto& trainer : alone) {
    while (!trainer.is_done()) trainer.run_step();
  }
  AdapterGroup group(base, {&together[0], &together[1], &together[2]});
  std::int64_t steps = 0;
  while (!group.is_done()) {
    EXPECT_GT(group.next_batch_tokens(), 0);
    group.run_step();
    ++steps;
  }
  EXPECT_EQ(steps, std::max({alone[0].step(), alone[1].step(), alone[2].step()}));
  for (std::size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(together[i].step(), alone[i].step());
    EXPECT_EQ(together[i].stats().tokens, alone[i].stats().tokens);
    EXPECT_EQ(together[i].stats().best_step, alone[i].stats().best_step);
    for (std::size_t s = 0; s < alone[i].stats().losses.size(); ++s)
      EXPECT_NEAR(together[i].stats().losses[s], alone[i].stats().losses[s], 1e-6) << i << " " << s;
    const auto a = alone[i].adapter(), b = together[i].adapter();
    for (const auto& [path, pair] : a.pairs) {
      EXPECT_TRUE(torch::allclose(pair.lora_a(), b.pairs.at(path).lora_a(), 1e-5, 1e-7)) << i << path;
      EXPECT_TRUE(torch::allclose(pair.lora_b(), b.pairs.at(path).lora_b(), 1e-5, 1e-7)) << i << path;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Means, AdapterGroupOf, ::testing::Values(LossMean::kExamples, LossMean::kTokens));

TEST(AdapterGroup, GoesOnFromItsMembersCheckpoints) {
  const auto base = tiny();
  auto whole = make_trainers(base), first = make_trainers(base), second = make_trainers(base);
  AdapterGroup all(base, {&whole[0], &whole[1], &whole[2]}), before(base, {&first[0], &first[1], &first[2]});
  while (!all.is_done()) all.run_step();
  for (int i = 0; i < 5; ++i) before.run_step();
  for (std::size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    const auto path = fs::temp_directory_path() / format("quiver-group-{}.safetensors", i);
    first[i].save(path, "key");
    ASSERT_TRUE(second[i].restore(path, "key"));
    fs::remove(path);
  }
  AdapterGroup after(base, {&second[0], &second[1], &second[2]});
  while (!after.is_done()) after.run_step();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(whole[i].result().equal(second[i].result())) << i;
}

TEST(AdapterGroup, RefusesWhatCannotShareABatch) {
  const auto base = tiny();
  const auto trainer = [&](const adapters::LoraOptions& options, std::int64_t pieces = 0) {
    return Trainer(base, adapters::initial_adapter("x", options, base.linears(), 1), nested_sequences(2, 1),
                   {.micro_batch_tokens = pieces});
  };
  auto plain = trainer({}), wide = trainer({.rank = 8}), dora = trainer({.use_dora = true}), dropping = trainer({.dropout = 0.1}),
       fewer = trainer({.target_modules = {"q_proj"}}), pieces = trainer({}, 40);
  EXPECT_NO_THROW(AdapterGroup(base, {&plain}));
  EXPECT_ERROR(AdapterGroup(base, {&plain, &wide}), ErrorKind::kMismatch, "adapters 'x' and 'x' differ in paths, rank or scaling at '");
  EXPECT_ERROR(AdapterGroup(base, {&plain, &dora}), ErrorKind::kUnsupported, "adapter 'x' is a DoRA, which is trained alone");
  EXPECT_ERROR(AdapterGroup(base, {&plain, &dropping}), ErrorKind::kUnsupported, "adapter 'x' is trained with dropout");
  EXPECT_ERROR(AdapterGroup(base, {&plain, &fewer}), ErrorKind::kMismatch, "projections: they cannot be trained in one batch");
  EXPECT_ERROR(AdapterGroup(base, {&plain, &pieces}), ErrorKind::kUnsupported, "adapter 'x' is trained in pieces of batches");
  EXPECT_ERROR(AdapterGroup(base, {}), ErrorKind::kUsage, "no adapter to train");
}

}  // namespace
}  // namespace quiver::train
