#include "quiver/model/generate.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <atomic>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

TEST(Generate, DoesNotDependOnTheOtherPrompts) {
  const auto model = golden_model();
  const std::vector<std::vector<std::int32_t>> prompts = {{5, 6, 7, 8, 9}, {5, 6, 7, 8, 9, 10, 11}, {200}, {5, 6, 7, 8, 9}};
  const schedule::RequestOptions sampled{.max_new_tokens = 12, .sampler = {.temperature = 0.9, .top_p = 0.8, .seed = 3}};
  const auto together = generate(model, prompts, sampled);
  EXPECT_EQ(together, generate(model, prompts, sampled, {.max_batch = 1}));
  EXPECT_EQ(together, generate(model, prompts, sampled));
  auto other_seed = sampled;
  other_seed.sampler.seed = 4;
  EXPECT_NE(together, generate(model, prompts, other_seed));
}

TEST(Generate, RefusesWhatItCannotDo) {
  const auto model = golden_model();
  const std::vector<std::vector<std::int32_t>> good = {{1}}, empty = {{}}, unknown = {{1, 5000}};
  EXPECT_ERROR(generate(model, empty, {}), ErrorKind::kUsage, "prompt 0 has no tokens");
  EXPECT_ERROR(generate(model, unknown, {}), ErrorKind::kMismatch, "token id 5000 is outside the model's vocabulary of");
  EXPECT_ERROR(generate(model, good, {.sampler = {.temperature = -1}}), ErrorKind::kUsage, "temperature is -1; expected 0 or more");
  EXPECT_ERROR(generate(model, good, {.sampler = {.top_p = 0}}), ErrorKind::kUsage, "`top_p` is 0; expected above 0 and at most 1");
  const std::vector<std::vector<std::int32_t>> full = {std::vector<std::int32_t>(static_cast<std::size_t>(model.spec().max_positions), 1)};
  EXPECT_ERROR(generate(model, full, {}), ErrorKind::kUsage, "prompt 0 has 256 tokens; the model's context of 256 leaves no room");
  EXPECT_ERROR(generate(model, full, {}, {.names = {"", {"t.jsonl:3"}}}), ErrorKind::kUsage, "t.jsonl:3 has 256 tokens");
  EXPECT_ERROR(generate(model, empty, {}, {.names = {"", {"t.jsonl:3"}}}), ErrorKind::kUsage, "t.jsonl:3 has no tokens");
  EXPECT_ERROR(generate(model, good, {.max_new_tokens = 0}), ErrorKind::kUsage, "max_new_tokens is 0; expected 1 or more");
  EXPECT_ERROR(generate(model, good, {}, {.max_batch = 0}), ErrorKind::kUsage, "max_batch is 0; expected 1 or more");
  EXPECT_ERROR(generate(model, good, {}, {.groups = {nullptr, nullptr}}), ErrorKind::kUsage, "2 groups for 1 prompts");
  EXPECT_ERROR(generate(model, good, {}, {.names = {"", {"a", "b"}}}), ErrorKind::kUsage, "2 names for 1 prompts");
}

TEST(Generate, AnIndexOfALongerRunDrawsTheSameNumbers) {
  const auto model = golden_model();
  const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3}, {4, 5}, {6, 7, 8}};
  const schedule::RequestOptions options{.max_new_tokens = 6, .sampler = {.temperature = 1.5}};
  const auto all = generate(model, prompts, options);
  const auto rest = generate(model, std::span(prompts).subspan(1), options, {.first_index = 1});
  EXPECT_EQ(rest[0], all[1]);
  EXPECT_EQ(rest[1], all[2]);
}

TEST(Generate, TellsTokensAsTheyComeAndEndsWhereItIsAsked) {
  const auto model = golden_model();
  const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3}, {4, 5}};
  const auto whole = generate(model, prompts, {.max_new_tokens = 5});
  std::vector<std::pair<std::int64_t, std::int32_t>> told;
  std::atomic<bool> flag{false};
  const GenerateOptions options{.stop = StopToken(flag)};
  const auto part = generate(model, prompts, {.max_new_tokens = 5}, options, [&](std::int64_t prompt, std::int32_t token) {
    told.emplace_back(prompt, token);
    if (told.size() == 5) flag = true;
    return prompt == 1 || told.size() < 3;  // the first prompt ends with its second token
  });
  using Told = std::pair<std::int64_t, std::int32_t>;
  EXPECT_EQ(told, (std::vector<Told>{{0, whole[0][0]}, {1, whole[1][0]}, {0, whole[0][1]}, {1, whole[1][1]}, {1, whole[1][2]}}));
  EXPECT_EQ(part[0], std::vector(whole[0].begin(), whole[0].begin() + 2));
  EXPECT_EQ(part[1], std::vector(whole[1].begin(), whole[1].begin() + 3));
}

}  // namespace
}  // namespace quiver::model
