#include "quiver/model/cached_pass.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/model/test_support.h"
#include "quiver/schedule/scheduler.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

using schedule::Finish;
using schedule::Request;
using schedule::RequestId;
using schedule::Scheduler;
using Tokens = std::vector<std::int32_t>;

/// The logits of every row of a text [T, V], from a pass without a cache.
torch::Tensor logits_alone(const Model& model, const Tokens& tokens) {
  const torch::InferenceMode inference;
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, tokens);
  return model.head().logits(hidden_of_all(model, forest_rows(forest))).to(torch::kFloat).contiguous();
}

/// The definition: every token from a pass over all before it, without a cache.
Tokens decode_alone(const Model& model, const Request& request) {
  schedule::Sampler sampler(request.options.sampler, request.tokens);
  auto tokens = request.tokens;
  Tokens answer;
  while (std::ssize(answer) < request.options.max_new_tokens && std::ssize(tokens) < model.spec().max_positions) {
    const auto last = logits_alone(model, tokens)[-1].clone();
    answer.push_back(sampler.choose(tensor::elements<float>(last, "logits")));
    sampler.count(answer.back());
    tokens.push_back(answer.back());
    if (std::ranges::find(request.options.stop_ids, answer.back()) != request.options.stop_ids.end()) break;
  }
  return answer;
}

/// A prompt of `length` tokens, the first `num_common` of which all have.
Request request_of(std::uint64_t index, std::int64_t num_common, std::int64_t length, std::int64_t max_new_tokens) {
  Request request{.options = {.max_new_tokens = max_new_tokens}, .name = format("request {}", index)};
  RandomStream common(1, "common"), own(index, "own");
  for (std::int64_t i = 0; i < length; ++i) {
    request.tokens.push_back(static_cast<std::int32_t>((i < num_common ? common : own).below(256)));
  }
  request.options.sampler = {.temperature = index % 3 == 0 ? 0 : 0.8, .top_p = index % 2 == 0 ? 1 : 0.9, .seed = index, .stream = "test"};
  return request;
}

/// Requests of many kinds, and their answers by the definition.
struct Known {
  std::vector<Request> requests;
  std::vector<Tokens> answers;

  explicit Known(const Model& model) {
    for (std::uint64_t i = 0; i < 12; ++i) {
      const auto num_common = static_cast<std::int64_t>(i % 4) * 15, length = num_common + 1 + static_cast<std::int64_t>(i * 5 % 17);
      requests.push_back(request_of(i, num_common, length, 1 + static_cast<std::int64_t>(i * 7 % 23)));
      if (i % 5 == 1) requests.back().options.stop_ids = {decode_alone(model, requests.back()).back(), 3};
      if (i % 5 == 2) requests.back().options.sampler.repetition_penalty = 1.2;
      answers.push_back(decode_alone(model, requests.back()));
    }
  }
};

/// Steps until nothing is left; adds up the tokens of each request.
std::map<RequestId, Tokens> run(Scheduler& scheduler) {
  std::map<RequestId, Tokens> answers;
  while (!scheduler.is_empty()) {
    for (const auto& event : scheduler.step()) answers[event.id].push_back(event.token);
  }
  return answers;
}

class ModelEngineTest : public ::testing::TestWithParam<torch::Dtype> {};

TEST_P(ModelEngineTest, GivesWhatEachRequestGivesAlone) {
  const auto model = golden_model("llama-tied", GetParam());
  const Known known(model);
  for (const std::int64_t step_rows : {2048, 37, 5}) {  // whole prompts, and chunks of them
    ModelEngine engine(model, 300);
    Scheduler scheduler(engine, {.max_sequences = 5, .page_rows = 4, .max_step_rows = step_rows});
    for (const auto& request : known.requests) scheduler.add(request);
    const auto answers = run(scheduler);
    for (std::size_t i = 0; i < known.requests.size(); ++i) EXPECT_EQ(answers.at(i), known.answers[i]) << i << ", " << step_rows;
    EXPECT_GT(scheduler.counts().cached_tokens, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ModelEngineTest, ::testing::Values(torch::kFloat, torch::kDouble));

TEST(ModelEngine, NeighboursThatComeAndGoChangeNothing) {
  const auto model = golden_model();
  const Known known(model);
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, "schedule");
    ModelEngine engine(model, 96 + static_cast<std::int64_t>(random.below(300)));
    Scheduler scheduler(engine, {.max_sequences = static_cast<std::int64_t>(1 + random.below(6)),
                                 .page_rows = static_cast<std::int64_t>(1 + random.below(9)),
                                 .max_step_rows = static_cast<std::int64_t>(3 + random.below(100))});
    std::map<RequestId, std::size_t> which;
    std::map<RequestId, Tokens> answers;
    std::map<RequestId, bool> is_removed;
    for (int added = 0; added < 15 || !scheduler.is_empty();) {
      while (added < 15 && random.below(3) != 0) {  // the same request several times, too
        const auto i = random.below(known.requests.size());
        which[scheduler.add(known.requests[i])] = i;
        ++added;
      }
      if (!which.empty() && random.below(6) == 0) {
        const auto id = random.below(which.size());
        is_removed[id] = scheduler.remove(id) || is_removed[id];
      }
      for (const auto& event : scheduler.step()) answers[event.id].push_back(event.token);
    }
    for (const auto& [id, i] : which) {
      auto expected = known.answers[i];
      if (is_removed[id]) expected.resize(answers[id].size());
      EXPECT_EQ(answers[id], expected) << id << " is request " << i;
    }
  }
}

TEST(ModelEngine, ScoresAPromptAndItsAnswer) {
  const auto model = golden_model();
  ModelEngine engine(model, 400);
  Scheduler scheduler(engine, {.page_rows = 4, .max_step_rows = 50});
  std::vector<Request> requests;
  for (const std::int64_t length : {30, 33, 9, 60}) {
    requests.push_back(request_of(static_cast<std::uint64_t>(length), std::min<std::int64_t>(length, 25), length, 2));
    requests.back().options.sampler = {};
    requests.back().options.top_log_probs = 3;
    requests.back().is_scored = true;
    scheduler.add(requests.back());
  }
  std::map<RequestId, std::vector<schedule::TokenScore>> scores;
  while (!scheduler.is_empty()) {
    for (const auto& event : scheduler.step()) {
      auto& mine = scores[event.id];
      mine.insert(mine.end(), event.prompt.begin(), event.prompt.end());
      mine.push_back(event.score);
      requests[event.id].tokens.push_back(event.token);
    }
  }
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const auto& tokens = requests[r].tokens;
    const auto log_probs = logits_alone(model, tokens).to(torch::kDouble).log_softmax(1);
    ASSERT_EQ(scores[r].size() + 1, tokens.size());
    for (std::size_t i = 0; i < scores[r].size(); ++i) {
      const auto row = log_probs[static_cast<std::int64_t>(i)];
      const auto& score = scores[r][i];
      EXPECT_EQ(score.token, tokens[i + 1]);
      EXPECT_NEAR(score.log_prob, row[score.token].item<double>(), 1e-5);
      const auto [values, places] = row.topk(3);
      ASSERT_EQ(score.top.size(), 3u);
      for (std::int64_t k = 0; k < 3; ++k) {
        EXPECT_EQ(score.top[static_cast<std::size_t>(k)].first, places[k].item<std::int64_t>());
        EXPECT_NEAR(score.top[static_cast<std::size_t>(k)].second, values[k].item<double>(), 1e-5);
        if (score.top[static_cast<std::size_t>(k)].first == score.token) {
          EXPECT_EQ(score.top[static_cast<std::size_t>(k)].second, score.log_prob);  // to the last bit: clients compare them
        }
      }
    }
  }
}

TEST(ModelEngine, EqualLogitsGoToTheLowerId) {
  const nn::Head head{.linear = nn::Linear(torch::tensor({{1.0f}, {3.0f}, {2.0f}, {3.0f}, {2.0f}, {3.0f}}))};
  std::vector<torch::Tensor> kept;
  const schedule::Query query{.target = 4, .top = 4, .wants_logits = true};
  const std::int64_t row = 0;
  const auto result = answer_queries(head, torch::ones({1, 1}), std::span(&row, 1), std::span(&query, 1), kept).at(0);
  EXPECT_EQ(result.largest, 1);
  std::vector<std::int32_t> ids;
  for (const auto& [token, log_prob] : result.score.top) ids.push_back(token);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 3, 5, 2}));
  const schedule::Query best{.target = 4, .top = 1};
  std::vector<torch::Tensor> none;
  const auto alone = answer_queries(head, torch::ones({1, 1}), std::span(&row, 1), std::span(&best, 1), none).at(0);
  EXPECT_EQ(alone.score.top, (decltype(alone.score.top){result.score.top[0]}));
  EXPECT_NEAR(result.log_sum_exp, std::log(std::exp(1) + 2 * std::exp(2) + 3 * std::exp(3)), 1e-5);
  EXPECT_EQ(result.score.log_prob, 2.0 - result.log_sum_exp);
  EXPECT_EQ((std::vector<float>(result.logits.begin(), result.logits.end())), (std::vector<float>{1, 3, 2, 3, 2, 3}));
}

TEST(ModelEngine, EndsAtTheContext) {
  const auto model = golden_model();
  ModelEngine engine(model, model.spec().max_positions + 32);
  Scheduler scheduler(engine);
  const auto request = request_of(3, 0, model.spec().max_positions - 3, 64);
  scheduler.add(request);
  const auto answers = run(scheduler);
  EXPECT_EQ(answers.at(0).size(), 3u);
  EXPECT_EQ(answers.at(0), decode_alone(model, request));
}

TEST(ModelEngine, LogitsThatAreNotFiniteEndTheirRequestAlone) {
  tensor::TensorMap weights;
  for (const auto& [name, value] : tensor::load_tensors("tests/golden/model/llama-tied/model.safetensors")) {
    weights.emplace(name.starts_with("model.") ? name.substr(6) : name, value);
  }
  weights["lm_head.weight"] = weights.at("embed_tokens.weight").clone();
  weights.at("embed_tokens.weight")[7].fill_(std::numeric_limits<float>::infinity());
  const Model model(golden_model().spec(), weights, {torch::kCPU, torch::kFloat}, {"", weights_hash(weights)});
  for (const std::int64_t top : {-1, 2}) {
    ModelEngine engine(model, 100);
    Scheduler scheduler(engine);
    for (const Tokens& tokens : {Tokens{1, 2, 3}, Tokens{1, 7, 3}, Tokens{4, 5}}) {
      scheduler.add({.tokens = tokens, .options = {.top_log_probs = top}, .name = "a request"});
    }
    const auto events = scheduler.step();
    ASSERT_EQ(events.size(), 3u);
    EXPECT_FALSE(events[0].finish);
    EXPECT_EQ(events[1].finish, Finish::kNotFinite);
    EXPECT_EQ(events[1].token, -1);
    EXPECT_FALSE(events[2].finish);
    EXPECT_EQ(scheduler.counts().num_running, 2);
  }
}

TEST(ModelEngine, SharesWithinAGroupAloneAndHoldsIt) {
  const auto model = golden_model();
  const auto one = std::make_shared<const std::int32_t>(1);
  ModelEngine engine(model, 800);
  Scheduler scheduler(engine, {.page_rows = 8});
  auto request = request_of(1, 40, 50, 9);
  scheduler.add(request);
  scheduler.step();
  request.assignment = std::make_shared<const GroupAssignment>(one);
  scheduler.add(request);
  EXPECT_EQ(scheduler.step().back().num_cached, 0);
  scheduler.add(request);
  EXPECT_EQ(scheduler.step().back().num_cached, 49);
  request = {};
  EXPECT_EQ(one.use_count(), 2);
  run(scheduler);
  EXPECT_EQ(one.use_count(), 1);
}

}  // namespace
}  // namespace quiver::model
