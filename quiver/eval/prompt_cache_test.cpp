#include "quiver/eval/prompt_cache.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/model/generate.h"
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
