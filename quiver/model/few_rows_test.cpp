// The pass over few rows against the general pass, for every family.
#include "quiver/model/few_rows.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>

#include "quiver/model/cached_pass.h"
#include "quiver/model/decoder.h"
#include "quiver/model/quantized_test_support.h"
#include "quiver/schedule/scheduler.h"

namespace quiver::model {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Changes nothing, and is not additive: a model with it takes the general pass.
class Nothing : public nn::Update {
 public:
  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows&,
                        nn::UpdateRecord&) const override {
    return below.forward(x, onto);
  }
};

/// Adds 0.1 (group + 1) times the sum of x to every output.
class AddsSum final : public Nothing, public nn::AdditiveUpdate {
 public:
  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord&) const override {
    auto y = below.forward(x, {}).contiguous();
    add_to(x, 0, x.size(0), rows, y);
    return onto.defined() ? onto + y : y;
  }
  void add_to(const torch::Tensor& all_x, std::int64_t begin, std::int64_t end, const nn::Rows& rows,
              const torch::Tensor& all_y) const override {
    const auto x = all_x.narrow(0, begin, end - begin), y = all_y.narrow(0, begin, end - begin);
    auto factors = torch::ones({x.size(0), 1});
    const auto groups = nn::row_groups(rows, x.size(0));
    for (std::size_t i = 0; i < groups.size(); ++i) factors[static_cast<std::int64_t>(i)] += groups[i];
    y.add_(x.sum(1, true) * factors * 0.1);
  }
};

template <typename U>
Model with_update(const Model& model, bool all) {
  auto linears = model.linears();
  for (auto& [path, linear] : linears) {
    linear = linear.with(std::make_shared<U>());
    if (!all) break;
  }
  return model.with_linears(linears);
}

/// Rows of the cache's sequences, as a scheduler makes them: the next token of each.
struct Step {
  KvCache cache;
  ForwardRows rows;
};

constexpr std::int64_t kCacheRows = 256;

/// `count` sequences of different lengths share the first 5 rows of a cache of random keys and values.
Step random_step(const Model& model, std::int64_t count, bool has_groups) {
  Step step{model.make_cache(kCacheRows), {}};
  for (std::size_t layer = 0; layer < step.cache.keys.size(); ++layer) {
    step.cache.keys[layer].copy_(testing::draw(step.cache.keys[layer].sizes(), layer));
    step.cache.values[layer].copy_(testing::draw(step.cache.values[layer].sizes(), 100 + layer));
  }
  auto plan = std::make_shared<backend::AttentionPlan>();
  plan->num_queries = count;
  plan->num_keys = kCacheRows;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto begin = std::ssize(plan->spans);
    plan->spans.push_back({0, 5});
    if (i % 3 != 0) plan->spans.push_back({5 + i, 1 + i % 4});
    std::int64_t num_visible = 0;
    for (auto s = begin; s < std::ssize(plan->spans); ++s) num_visible += plan->spans[static_cast<std::size_t>(s)].length;
    const auto own = kCacheRows - 1 - i;
    plan->blocks.push_back({i, own, 1, begin, std::ssize(plan->spans), num_visible});
    step.rows.tokens.push_back(static_cast<std::int32_t>((i * 31 + 7) % model.spec().vocab_size));
    step.rows.positions.push_back(num_visible);
    if (has_groups) step.rows.groups.push_back(static_cast<std::int32_t>(i % 3));
    step.rows.cache_rows.push_back(own);
  }
  plan->num_direct = std::ssize(plan->blocks);
  step.rows.plan = plan;
  step.rows.attend_to_cache = true;
  return step;
}

struct Result {
  torch::Tensor hidden;
  KvCache cache;
};
Result run(const Model& model, Step step) {
  const torch::InferenceMode inference;
  step.rows.cache = &step.cache;
  auto hidden = hidden_of_all(model, step.rows);
  return {hidden, step.cache};
}

bool is_near(const torch::Tensor& a, const torch::Tensor& b, double tolerance) {
  return a.sizes().equals(b.sizes()) && ((a - b).abs().max() / b.abs().max()).item<double>() < tolerance;
}
bool are_same(const KvCache& a, const KvCache& b) {
  for (std::size_t layer = 0; layer < a.keys.size(); ++layer) {
    if (!is_near(a.keys[layer], b.keys[layer], 1e-3) || !is_near(a.values[layer], b.values[layer], 1e-3)) return false;
  }
  return true;
}

/// GPT-Neo is not known to llama.cpp, a file does not tell which layers of SmolLM3 rotate, and the last two have windows.
std::vector<std::string> cases() {
  auto names = testing::golden_cases(testing::kFamilies);
  for (const char* lost : {"gpt_neo", "gpt_neo-default", "smollm3-window", "mistral", "qwen2-window"}) std::erase(names, lost);
  return names;
}

class FewRowsTest : public ::testing::TestWithParam<std::string> {
 protected:
  const Model model_ = QuantizedFile(GetParam()).load(Weights::kQuantized);
};

TEST_P(FewRowsTest, IsTheGeneralPass) {
  ASSERT_NE(model_.few_rows(), nullptr);
  const auto general = with_update<Nothing>(model_, false);
  ASSERT_EQ(general.few_rows(), nullptr);
  for (const std::int64_t count : {std::int64_t{1}, std::int64_t{3}, std::int64_t{4}, FewRows::kMostRows}) {
    const auto found = run(model_, random_step(model_, count, false)), expected = run(general, random_step(model_, count, false));
    EXPECT_TRUE(is_near(found.hidden, expected.hidden, 1e-3)) << count;
    EXPECT_TRUE(are_same(found.cache, expected.cache)) << count;
  }
}

TEST_P(FewRowsTest, AddsUpdatesByGroup) {
  const auto model = with_update<AddsSum>(model_, true);
  ASSERT_NE(model.few_rows(), nullptr);
  const auto general = with_update<Nothing>(model, false);
  for (const std::int64_t count : {1, 5}) {
    const auto found = run(model, random_step(model, count, true)), expected = run(general, random_step(model, count, true));
    EXPECT_TRUE(is_near(found.hidden, expected.hidden, 1e-3)) << count;
    EXPECT_FALSE(is_near(found.hidden, run(model_, random_step(model_, count, true)).hidden, 1e-2)) << count;
  }
}

TEST_P(FewRowsTest, HasTheSameBitsForAnyThreadsAndRows) {
  const auto threads = ::at::get_num_threads();
  const auto all = run(model_, random_step(model_, 9, false)).hidden;
  ::at::set_num_threads(threads == 1 ? 2 : 1);
  EXPECT_TRUE(torch::equal(run(model_, random_step(model_, 9, false)).hidden, all));
  ::at::set_num_threads(threads);
  for (const std::int64_t count : {1, 2}) {
    EXPECT_TRUE(torch::equal(run(model_, random_step(model_, count, false)).hidden, all.narrow(0, 0, count))) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, FewRowsTest, ::testing::ValuesIn(cases()), testing::case_name);

TEST(FewRowsPlan, TakesFewRowsOverACache) {
  const auto model = QuantizedFile("llama").load(Weights::kQuantized);
  const auto takes = [&](auto&& change) {
    auto step = random_step(model, 2, false);
    step.rows.cache = &step.cache;
    change(step.rows);
    return model.few_rows()->takes(step.rows);
  };
  EXPECT_TRUE(takes([](ForwardRows&) {}));
  EXPECT_FALSE(takes([](ForwardRows& rows) { rows.attend_to_cache = false; }));
  EXPECT_FALSE(takes([](ForwardRows& rows) { rows.cache = nullptr; }));
  EXPECT_FALSE(takes([](ForwardRows& rows) { rows.tokens.clear(); }));
  EXPECT_FALSE(takes([](ForwardRows& rows) { rows.tokens.resize(FewRows::kMostRows + 1); }));
}

TEST(FewRowsPlan, IsForQuantizedMapsAlone) {
  const QuantizedFile file("llama");
  EXPECT_EQ(file.load(Weights::kDense).few_rows(), nullptr);
  const auto model = file.load(Weights::kQuantized);
  EXPECT_EQ(model.with_weights({{"layers.0.mlp.up_proj.weight", torch::zeros({160, 96})}}).few_rows(), nullptr);
}

/// Requests decoded together give what each gives alone, by the general pass without a cache.
TEST(FewRowsScheduler, DecodesWhatTheGeneralPassDecodes) {
  const torch::InferenceMode inference;
  const auto model = QuantizedFile("llama").load(Weights::kQuantized);
  ModelEngine engine(model, 512);
  schedule::Scheduler scheduler(engine, {.max_sequences = 6});
  std::vector<Tokens> expected;
  for (std::int32_t i = 0; i < 9; ++i) {
    schedule::Request request{.tokens = {3, 5, i, 2 * i + 1}, .options = {.max_new_tokens = 12}, .assignment = nullptr, .name = "a prompt"};
    auto tokens = request.tokens;
    for (int n = 0; n < 12; ++n) {
      forest::TokenForest forest;
      forest.add_segment(forest::kNoParent, tokens);
      tokens.push_back(model.head().logits(hidden_of_all(model, forest_rows(forest)))[-1].argmax().item<std::int32_t>());
    }
    expected.emplace_back(tokens.begin() + 4, tokens.end());
    scheduler.add(std::move(request));
  }
  std::map<schedule::RequestId, Tokens> answers;
  while (!scheduler.is_empty()) {
    for (const auto& event : scheduler.step()) answers[event.id].push_back(event.token);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(answers[i], expected[i]) << i;
}

}  // namespace
}  // namespace quiver::model
