#include "quiver/train/mixture.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "quiver/adapters/lora_update.h"
#include "quiver/base/error.h"
#include "quiver/train/test_support.h"
#include "quiver/train/trainer.h"

namespace quiver::train {
namespace {

constexpr std::int64_t kTasks = 4;

std::vector<adapters::LoraAdapter> random_skills(const model::Model& base, int count) {
  std::vector<adapters::LoraAdapter> skills;
  for (int k = 0; k < count; ++k) {
    skills.push_back(random_adapter(base, 20 + static_cast<std::uint64_t>(k)));
    skills.back().name = format("skill-{}", k);
  }
  return skills;
}

/// Sequences of tasks 3, 0 and 1, with common prefixes within and across tasks.
std::vector<forest::Sequence> of_tasks() {
  auto sequences = nested_sequences(3, 7);
  for (std::size_t i = 0; i < sequences.size(); ++i) sequences[i].group = (i % 3 == 0) ? 3 : static_cast<std::int32_t>(i % 3 - 1);
  return sequences;
}

/// The loss with each sequence alone, under a LoRA whose factors are sums over skills; differentiable in `leaf`, flat as values().
torch::Tensor plain_loss(const model::Model& base, const std::vector<adapters::LoraAdapter>& skills, const merge::MixShape& shape,
                         bool train_skills, const torch::Tensor& leaf, const std::vector<forest::Sequence>& sequences) {
  const auto units = merge::mix_units(skills.front(), shape.unit);
  const auto num_skills = static_cast<std::int64_t>(skills.size());
  const auto logits =
      leaf.narrow(0, 0, kTasks * units.count * shape.num_heads * num_skills).view({kTasks, units.count, shape.num_heads, num_skills});
  auto total = torch::zeros({}, torch::kDouble);
  for (const auto& sequence : sequences) {
    auto offset = logits.numel();
    auto mixed = skills.front();
    for (auto& [path, pair] : mixed.pairs) {
      const auto next = [&](const torch::Tensor& like) {
        const auto piece = leaf.narrow(0, offset, num_skills * like.numel()).view({num_skills, like.size(0), like.size(1)});
        offset += piece.numel();
        return piece;
      };
      const auto all_a = train_skills ? next(pair.lora_a()) : torch::Tensor(), all_b = train_skills ? next(pair.lora_b()) : torch::Tensor();
      std::vector<torch::Tensor> a_blocks, b_blocks;
      for (std::int64_t s = 0; s < shape.num_heads; ++s) {
        const auto z = logits[sequence.group][units.of_path.at(path)][s];
        const auto w = shape.rule == merge::MixRule::kSigmoid   ? z.sigmoid() / (z.sigmoid().sum() + 1e-8)
                       : shape.rule == merge::MixRule::kSoftmax ? z.exp() / z.exp().sum()
                                                                : z;
        torch::Tensor a, b;
        for (std::int64_t k = 0; k < num_skills; ++k) {
          const auto& own = skills[static_cast<std::size_t>(k)].pairs.at(path);
          const auto a_k = train_skills ? all_a[k] : own.lora_a().to(torch::kDouble),
                     b_k = train_skills ? all_b[k] : own.lora_b().to(torch::kDouble);
          const auto width = a_k.size(1) / shape.num_heads, height = b_k.size(0) / shape.num_heads;
          const auto mine_a = w[k] * a_k.narrow(1, s * width, width), mine_b = w[k] * b_k.narrow(0, s * height, height);
          a = a.defined() ? a + mine_a : mine_a;
          b = b.defined() ? b + mine_b : mine_b;
        }
        a_blocks.push_back(a);
        b_blocks.push_back(b);
      }
      pair = adapters::LoraPair(torch::cat(a_blocks, 1), torch::cat(b_blocks, 0), pair.alpha());
    }
    const auto batch = forest::build_batch(std::span(&sequence, 1), {.share_prefixes = false});
    total =
        total + testing::reference_loss(base, batch.forest, loss_targets(batch, LossMean::kExamples), testing::adapter_definitions(mixed)) /
                    static_cast<double>(sequences.size());
  }
  return total;
}

struct Case {
  merge::MixShape shape;
  bool train_skills = true;
};

class MixtureGradient : public ::testing::TestWithParam<Case> {};

TEST_P(MixtureGradient, EqualsThatOfSequencesOneByOne) {
  const auto& [shape, train_skills] = GetParam();
  const auto base = tiny(torch::kDouble);
  const auto skills = random_skills(base, 3);
  Mixture mixture("poly", skills, kTasks, {.shape = shape, .train_skills = train_skills, .initial_logit = 0.2, .initial_spread = 1},
                  torch::kCPU, torch::kDouble);
  const auto sequences = of_tasks();
  const auto leaf = mixture.values().clone().requires_grad_();
  const auto expected = plain_loss(base, skills, shape, train_skills, leaf, sequences);
  expected.backward();

  const model::TrainedModel adapted(base, mixture.attach(base.linears()));
  auto renamed = sequences;
  for (auto& sequence : renamed) sequence.group = sequence.group == 3 ? 2 : sequence.group;  // groups 0, 1, 2 stand for tasks 0, 1, 3
  mixture.lay_out(std::vector<std::int32_t>{0, 1, 3});
  const auto batch = forest::build_batch(renamed, {.min_shared_tokens = 1});
  EXPECT_LT(batch.forest.num_rows(), batch.num_tokens - static_cast<std::int64_t>(sequences.size()));  // something was shared
  const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
  mixture.collect();
  EXPECT_NEAR(loss, expected.item<double>(), 1e-9);
  EXPECT_GT(leaf.grad().norm().item<double>(), 1e-3);
  EXPECT_LT((mixture.gradient() - leaf.grad()).norm().item<double>(), 1e-8 * leaf.grad().norm().item<double>());
  const auto logits = mixture.logits(mixture.gradient()), plain = mixture.logits(leaf.grad());
  EXPECT_LT((logits - plain).norm().item<double>(), 1e-8 * plain.norm().item<double>());
  EXPECT_TRUE(logits[2].equal(torch::zeros_like(logits[2])));  // no sequence was of task 2
}

using merge::MixRule, merge::MixUnit;
INSTANTIATE_TEST_SUITE_P(Cases, MixtureGradient,
                         ::testing::Values(Case{{MixRule::kSigmoid, MixUnit::kProjection, 1}},
                                           Case{{MixRule::kSigmoid, MixUnit::kBlock, 2}}, Case{{MixRule::kSoftmax, MixUnit::kModel, 1}},
                                           Case{{MixRule::kLinear, MixUnit::kLayer, 1}},
                                           Case{{MixRule::kSigmoid, MixUnit::kProjection, 1}, false}));

TEST(Mixture, TheAdapterOfATaskGivesItsLoss) {
  const auto base = tiny();
  Mixture mixture("poly", random_skills(base, 3), kTasks, {.shape = {.num_heads = 2}, .initial_spread = 2}, torch::kCPU);
  const model::TrainedModel adapted(base, mixture.attach(base.linears()));
  for (const std::int32_t task : {0, 2}) {
    SCOPED_TRACE(task);
    auto sequences = nested_sequences(2, 3);
    const auto batch = forest::build_batch(sequences);
    mixture.lay_out(std::span(&task, 1));
    const double loss = model::loss_of(adapted.model(), model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    const auto one = base.with_linears(adapters::attach(base.linears(), mixture.task_adapter(mixture.values(), task, "one")));
    EXPECT_NEAR(loss, model::loss_of(one, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples)), 1e-5);
  }
}

Trainer mixture_trainer(const model::Model& base, double dropout = 0, bool sample_weights = false) {
  TrainOptions options{.epochs = 3, .batch_size = 4, .validate_every = 2};
  options.optimizer.learning_rate = 1e-2;
  auto skills = random_skills(base, 3);
  for (auto& skill : skills) skill.options.dropout = dropout;
  const auto mixture = std::make_shared<Mixture>(
      "poly", std::move(skills), kTasks, MixtureOptions{.logit_rate_ratio = 10, .initial_spread = 1e-3, .sample_weights = sample_weights},
      torch::kCPU);
  return Trainer(base, mixture, of_tasks(), options, of_tasks());
}

TEST(Mixture, TrainingLowersTheLossAndResumesBitForBit) {
  const auto base = tiny();
  const auto path = fs::temp_directory_path() / "quiver-mixture-test.safetensors";
  for (const auto& [dropout, sample_weights] : {std::pair(0.0, false), {0.3, false}, {0.0, true}}) {
    SCOPED_TRACE(format("dropout {}, sample_weights {}", dropout, sample_weights));
    auto whole = mixture_trainer(base, dropout, sample_weights);
    while (!whole.is_done()) whole.run_step();
    EXPECT_LT(whole.stats().validations.back().loss, 0.9 * whole.stats().losses.front());
    auto first = mixture_trainer(base, dropout, sample_weights);
    for (int i = 0; i < 4; ++i) first.run_step();
    first.save(path, "key");
    auto second = mixture_trainer(base, dropout, sample_weights);
    ASSERT_TRUE(second.restore(path, "key"));
    while (!second.is_done()) second.run_step();
    EXPECT_TRUE(whole.result().equal(second.result()));
    EXPECT_ERROR(whole.adapter(), ErrorKind::kInternal, "is not one adapter");
  }
  fs::remove(path);
}

TEST(Mixture, SampledWeightsAreThoseOfLogitsWithLogisticNoise) {
  const auto base = tiny(torch::kDouble);
  const auto skills = random_skills(base, 3);
  const auto sequences = of_tasks();
  const auto computed = [&](const MixtureOptions& options, std::optional<std::uint64_t> noise, bool adds_noise_to_values) {
    Mixture mixture("poly", skills, kTasks, options, torch::kCPU, torch::kDouble);
    if (adds_noise_to_values) {
      const auto logits = mixture.logits(mixture.values());
      RandomStream random(*noise, "weights");
      std::vector<double> moved;
      for (std::int64_t i = 0; i < logits.numel(); ++i) {
        const double u = random.uniform();
        moved.push_back(logits.flatten()[i].item<double>() + std::log(u / (1 - u)));
      }
      mixture.values().narrow(0, 0, logits.numel()).copy_(torch::tensor(moved, torch::kDouble));
    }
    const model::TrainedModel adapted(base, mixture.attach(base.linears()));
    if (!adds_noise_to_values) mixture.set_noise(noise);
    mixture.lay_out(std::vector<std::int32_t>{0, 1, 2, 3});
    const auto batch = forest::build_batch(sequences);
    const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    mixture.collect();
    return std::pair(loss, mixture.gradient().clone());
  };
  const MixtureOptions plain{.initial_spread = 1}, sampling{.initial_spread = 1, .sample_weights = true};
  const auto [loss, gradient] = computed(sampling, 7, false);
  const auto [moved_loss, moved_gradient] = computed(plain, 7, true);
  EXPECT_NEAR(loss, moved_loss, 1e-12);
  EXPECT_LT((gradient - moved_gradient).norm().item<double>(), 1e-10 * gradient.norm().item<double>());
  EXPECT_GT(std::abs(loss - computed(sampling, 8, false).first), 1e-6);
  EXPECT_EQ(computed(sampling, std::nullopt, false).first, computed(plain, std::nullopt, false).first);  // nothing is drawn in validation
  EXPECT_EQ(computed(plain, 7, false).first, computed(plain, std::nullopt, false).first);
  EXPECT_ERROR(Mixture("poly", skills, kTasks, {.shape = {.rule = merge::MixRule::kLinear}, .sample_weights = true}, torch::kCPU),
               ErrorKind::kUsage, "weights are sampled where they are sigmoids, not by the rule 'linear'");
}

TEST(Mixture, LogitsHaveARateOfTheirOwn) {
  const auto base = tiny();
  Mixture mixture("poly", random_skills(base, 2), 2, {.logit_rate_ratio = 10}, torch::kCPU);
  const auto rates = mixture.rate_factors({.lora_plus_ratio = 4});
  EXPECT_TRUE((mixture.logits(rates) == 10).all().item<bool>());
  for (const auto& skill : mixture.skills(rates)) {
    for (const auto& [path, pair] : skill.pairs) {
      SCOPED_TRACE(path);
      EXPECT_TRUE((pair.lora_a() == 1).all().item<bool>() && (pair.lora_b() == 4).all().item<bool>());
    }
  }
}

}  // namespace
}  // namespace quiver::train
