#include "quiver/eval/prompt_cache.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "quiver/model/generate.h"
#include "quiver/nn/linear.h"
#include "quiver/nn/rows.h"
#include "quiver/testing/message_of.h"

namespace quiver::eval {
namespace {

using Tokens = std::vector<std::int32_t>;

model::Model tiny() { return model::load_model("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat}); }

Tokens text_of(std::int32_t first, std::int32_t count) {
  Tokens tokens;
  for (std::int32_t i = 0; i < count; ++i) tokens.push_back((first + 7 * i) % 60 + 3);
  return tokens;
}

TEST(PromptCache, ScoresAndAnswersAreThoseOfSeparatePasses) {
  const auto model = tiny();
  std::vector<forest::Sequence> references;
  std::vector<AnswerRequest> requests;
  std::vector<Tokens> prompts;
  for (std::int32_t i = 0; i < 9; ++i) {
    auto prompt = text_of(1, 20);  // solved examples that all have
    const auto own = text_of(2 + i, 5 + i);
    prompt.insert(prompt.end(), own.begin(), own.end());
    auto sequence = prompt;
    const auto reference = text_of(i, 1 + i % 4);
    sequence.insert(sequence.end(), reference.begin(), reference.end());
    references.push_back({sequence, 1 + i % 4});
    prompts.push_back(prompt);
    requests.push_back({prompt, {.max_new_tokens = 6}});
  }
  PromptCache cache(model, cache_rows_for(model, references, requests));
  NoProgress quiet;
  const auto expected = score_sequences(model, references, {}, quiet);
  for (int again = 0; again < 2; ++again) {
    const auto scores = cache.score(references, {}, {});
    ASSERT_EQ(scores.size(), expected.size());
    for (std::size_t i = 0; i < scores.size(); ++i) {
      ASSERT_EQ(scores[i].token_log_probs.size(), expected[i].token_log_probs.size()) << i;
      for (std::size_t t = 0; t < scores[i].token_log_probs.size(); ++t)
        EXPECT_NEAR(scores[i].token_log_probs[t], expected[i].token_log_probs[t], 1e-4) << i << " " << t;
      EXPECT_NEAR(scores[i].log_prob, expected[i].log_prob, 4e-4);
    }
    EXPECT_EQ(cache.answer(requests, {}), model::generate(model, prompts, {.max_new_tokens = 6}));
  }
  EXPECT_EQ(cache.counts().cached_tokens, 916u) << "the 20 tokens in common, prompts before their answers, and all of the second time";
}

/// Adds the group times a part of the sum of x to every output.
class ByGroup final : public nn::Update {
 public:
  explicit ByGroup(const double& factor) : factor_(factor) {}
  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord&) const override {
    auto factors = torch::zeros({x.size(0), 1});
    const auto groups = nn::row_groups(rows, x.size(0));
    for (std::size_t i = 0; i < groups.size(); ++i) factors[static_cast<std::int64_t>(i)] = groups[i];
    return below.forward(x, onto) + x.sum(1, true) * factors * factor_;
  }

 private:
  const double& factor_;
};

model::Model with_groups(const model::Model& model, const double& factor) {
  auto linears = model.linears();
  for (auto& [path, linear] : linears) linear = linear.with(std::make_shared<ByGroup>(factor));
  return model.with_linears(linears);
}

TEST(PromptCache, GroupsShareNoRows) {
  const double factor = 0.2;
  const auto model = with_groups(tiny(), factor);
  const std::vector<model::GroupHold> holds = {std::make_shared<const std::int32_t>(0), std::make_shared<const std::int32_t>(1),
                                               std::make_shared<const std::int32_t>(2)};
  std::vector<forest::Sequence> sequences;
  std::vector<model::GroupHold> groups;
  std::vector<AnswerRequest> requests;
  std::vector<Tokens> prompts;
  for (std::int32_t i = 0; i < 9; ++i) {  // one text for all groups, of more than a page
    const auto text = text_of(i / 3, 40);
    const auto& hold = holds[static_cast<std::size_t>(i) % 3];
    sequences.push_back({text, 5, *hold});
    groups.push_back(hold);
    prompts.push_back(text);
    requests.push_back({text, {.max_new_tokens = 6}, hold});
  }
  NoProgress quiet;
  const auto expected = score_sequences(model, sequences, {}, quiet);
  const auto answers = model::generate(model, prompts, {.max_new_tokens = 6}, {.groups = groups});
  ASSERT_GT(std::abs(expected[0].log_prob - expected[1].log_prob), 0.01);
  ASSERT_GT(std::abs(expected[1].log_prob - expected[2].log_prob), 0.01);
  ASSERT_NE(answers[0], answers[1]);
  PromptCache cache(model, cache_rows_for(model, sequences, requests));
  for (int again = 0; again < 2; ++again) {
    const auto scores = cache.score(sequences, groups, {});
    for (std::size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i].log_prob, expected[i].log_prob, 5e-4) << i;
    EXPECT_EQ(cache.answer(requests, {}), answers);
  }
}

TEST(PromptCache, WhatIsForgottenIsComputedAgain) {
  double factor = 0.2;
  const auto model = with_groups(tiny(), factor);
  const std::vector<forest::Sequence> sequences = {{text_of(1, 40), 5, 1}};
  const std::vector<model::GroupHold> groups = {std::make_shared<const std::int32_t>(1)};
  NoProgress quiet;
  PromptCache cache(model, 256);
  const auto before = cache.score(sequences, groups, {}).at(0).log_prob;
  factor = 0.5;  // the group's number stands for other adapters
  cache.forget();
  const auto expected = score_sequences(model, sequences, {}, quiet).at(0).log_prob;
  ASSERT_GT(std::abs(expected - before), 0.01);
  EXPECT_NEAR(cache.score(sequences, groups, {}).at(0).log_prob, expected, 5e-4);
}

TEST(PromptCache, WhereRowsAreScarceRequestsWait) {
  const auto model = tiny();
  std::vector<forest::Sequence> sequences;
  std::vector<AnswerRequest> requests;
  for (std::int32_t i = 0; i < 12; ++i) {
    sequences.push_back({text_of(5 * i, 30 + i), 1 + i % 3});
    requests.push_back({text_of(5 * i, 30 + i), {.max_new_tokens = 20}});
    requests.back().options.sampler = {.temperature = 1, .seed = 7, .stream = std::to_string(i)};
  }
  const auto run = [&](std::int64_t rows, std::int64_t& most_waiting) {
    PromptCache cache(model, rows);
    auto scores = cache.score(sequences, {}, {});
    auto answers = cache.answer(requests, {}, [&](std::size_t, std::span<const std::int32_t>) {
      most_waiting = std::max(most_waiting, cache.counts().num_waiting);
      return false;
    });
    return std::pair(std::move(scores), std::move(answers));
  };
  std::int64_t waiting = 0, waiting_of_few = 0;
  const auto [scores, answers] = run(cache_rows_for(model, sequences, requests), waiting);
  const auto [scores_of_few, answers_of_few] = run(80, waiting_of_few);  // room for one of the longest
  EXPECT_EQ(waiting, 0) << "cache_rows_for gives all of them room";
  EXPECT_GE(waiting_of_few, 8);
  EXPECT_EQ(answers_of_few, answers);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    ASSERT_EQ(scores_of_few[i].token_log_probs.size(), scores[i].token_log_probs.size());
    EXPECT_NEAR(scores_of_few[i].log_prob, scores[i].log_prob, 1e-4) << i;
  }
  PromptCache small(model, 48);
  EXPECT_ERROR(small.answer(requests, {}), ErrorKind::kUsage, "of the KV cache, which has 3: allow fewer new tokens or more rows");
}

TEST(PromptCache, AnswersEndWhereTheCallerSays) {
  const auto model = tiny();
  const std::vector<AnswerRequest> requests = {{text_of(1, 6), {.max_new_tokens = 8}}, {text_of(2, 6), {.max_new_tokens = 8}}};
  PromptCache cache(model, cache_rows_for(model, {}, requests));
  const auto whole = cache.answer(requests, {});
  const auto cut =
      cache.answer(requests, {}, [](std::size_t request, std::span<const std::int32_t> answer) { return answer.size() == request + 2; });
  EXPECT_EQ(cut[0], Tokens(whole[0].begin(), whole[0].begin() + 2));
  EXPECT_EQ(cut[1], Tokens(whole[1].begin(), whole[1].begin() + 3));
}

TEST(PromptCache, RefusesWhatHasNoTargets) {
  const auto model = tiny();
  PromptCache cache(model, 64);
  const model::PassNames names{.model = "the base", .inputs = {"row 7"}};
  EXPECT_ERROR(cache.score({{{text_of(1, 4), 0}}}, {}, names), ErrorKind::kUsage, "row 7: 0 of 4 tokens are targets; expected 1 or more");
  EXPECT_ERROR(cache.score({{{text_of(1, 4), 4}}}, {}, names), ErrorKind::kUsage, "row 7: 4 of 4 tokens are targets");
}

}  // namespace
}  // namespace quiver::eval
