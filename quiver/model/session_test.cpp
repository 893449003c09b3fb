#include "quiver/model/session.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

using Tokens = std::vector<std::int32_t>;

/// The definition: every token from a pass over all before it, without a cache.
Tokens decode_alone(const Model& model, const Request& request) {
  const torch::InferenceMode inference;
  Sampler sampler(request.options.sampler);
  auto tokens = request.tokens;
  Tokens answer;
  while (std::ssize(answer) < request.options.max_new_tokens && std::ssize(tokens) < model.spec().max_positions) {
    forest::TokenForest forest;
    forest.add_segment(forest::kNoParent, tokens);
    answer.push_back(sampler.choose(model.head().logits(hidden_of_all(model, forest_rows(forest)))[-1]));
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
      answers.push_back(decode_alone(model, requests.back()));
    }
  }
};

/// Steps until nothing is left; adds up the tokens of each request.
void run(Session& session, std::map<RequestId, Tokens>& answers) {
  while (!session.is_empty()) {
    for (const auto& [id, token, finish] : session.step()) answers[id].push_back(token);
  }
}

class SessionTest : public ::testing::TestWithParam<torch::Dtype> {};

TEST_P(SessionTest, GivesWhatEachRequestGivesAlone) {
  const auto model = golden_model("llama-tied", GetParam());
  const Known known(model);
  Session session(model, {.max_batch = 5, .cache_rows = 300, .page_rows = 4});
  for (const auto& request : known.requests) session.add(request);
  std::map<RequestId, Tokens> answers;
  run(session, answers);
  for (std::size_t i = 0; i < known.requests.size(); ++i) EXPECT_EQ(answers[i], known.answers[i]) << i;
  EXPECT_EQ(session.pages().num_free(), 75);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, SessionTest, ::testing::Values(torch::kFloat, torch::kDouble));

TEST(Session, NeighboursThatComeAndGoChangeNothing) {
  const auto model = golden_model();
  const Known known(model);
  for (std::uint64_t schedule = 0; schedule < 12; ++schedule) {
    SCOPED_TRACE(schedule);
    RandomStream random(schedule, "schedule");
    const auto page_rows = static_cast<std::int64_t>(1 + random.below(9));
    Session session(model, {.max_batch = static_cast<std::int64_t>(1 + random.below(6)),
                            .cache_rows = 96 + static_cast<std::int64_t>(random.below(300)),
                            .page_rows = page_rows});
    std::map<RequestId, std::size_t> which;
    std::map<RequestId, Tokens> answers;
    std::map<RequestId, bool> is_removed;
    for (int added = 0; added < 15 || !session.is_empty();) {
      while (added < 15 && random.below(3) != 0) {  // the same request several times, too
        const auto i = random.below(known.requests.size());
        which[session.add(known.requests[i])] = i;
        ++added;
      }
      if (!which.empty() && random.below(6) == 0) {
        const auto id = random.below(which.size());
        is_removed[id] = session.remove(id) || is_removed[id];
      }
      for (const auto& [id, token, finish] : session.step()) {
        ASSERT_FALSE(is_removed[id]);
        answers[id].push_back(token);
        const bool is_last = answers[id].size() == known.answers[which[id]].size();
        const auto& stop_ids = known.requests[which[id]].options.stop_ids;
        const auto expected = std::ranges::find(stop_ids, token) != stop_ids.end() ? Finish::kStopId : Finish::kLength;
        EXPECT_EQ(finish, is_last ? std::optional(expected) : std::nullopt);
      }
    }
    for (const auto& [id, i] : which) {
      auto expected = known.answers[i];
      if (is_removed[id]) expected.resize(answers[id].size());
      EXPECT_EQ(answers[id], expected) << id << " is request " << i;
    }
    EXPECT_EQ(session.pages().num_free(), session.pages().num_pages());
  }
}

TEST(Session, SharesRowsWithARunningRequestAndFreesThemWithTheLast) {
  const auto model = golden_model();
  const auto first = request_of(1, 40, 50, 9), second = request_of(2, 40, 45, 20), third = request_of(4, 40, 47, 20);
  Session session(model, {.cache_rows = 800, .page_rows = 8});
  std::map<RequestId, Tokens> answers;
  const auto used = [&] { return session.pages().num_pages() - session.pages().num_free(); };
  const auto step = [&] {
    for (const auto& [id, token, finish] : session.step()) answers[id].push_back(token);
  };
  session.add(first);
  EXPECT_EQ(used(), 0);
  step();
  EXPECT_EQ(used(), 7 + 1);  // 50 rows, and 8 more
  session.add(second);
  session.add(third);
  step();
  EXPECT_EQ(used(), 8 + 2 + 2 * 3);  // 5 and 7 rows together, and 19 more for each
  EXPECT_TRUE(session.remove(0));
  EXPECT_EQ(used(), 5 + 2 + 2 * 3);  // of the first, the 40 rows that the others read
  EXPECT_FALSE(session.remove(0));
  while (!session.is_empty()) step();
  EXPECT_EQ(used(), 0);
  EXPECT_EQ(answers[1], decode_alone(model, second));
  EXPECT_EQ(answers[2], decode_alone(model, third));
}

TEST(Session, SharesWithinAnAssignmentAloneAndHoldsIt) {
  const auto model = golden_model();
  auto first = request_of(1, 40, 50, 9), second = request_of(2, 40, 45, 9), third = request_of(4, 40, 45, 9);
  const auto one = std::make_shared<const std::int32_t>(1);
  second.assignment = third.assignment = one;
  Session session(model, {.cache_rows = 800, .page_rows = 8});
  const auto used = [&] { return session.pages().num_pages() - session.pages().num_free(); };
  session.add(first);
  session.step();
  session.add(second);
  session.step();
  EXPECT_EQ(used(), 8 + 6 + 1);
  session.add(third);
  session.step();
  EXPECT_EQ(used(), 8 + 7 + 1 + 1);
  second = third = {};
  EXPECT_EQ(one.use_count(), 3);
  std::map<RequestId, Tokens> answers;
  run(session, answers);
  EXPECT_EQ(one.use_count(), 1);
}

TEST(Session, ARequestWaitsForAPlaceAndForRows) {
  const auto model = golden_model();
  Session session(model, {.max_batch = 2, .cache_rows = 64, .page_rows = 8});
  const auto large = request_of(1, 0, 30, 9), small = request_of(2, 0, 5, 3), smaller = request_of(3, 0, 4, 3);
  session.add(large);  // 5 pages
  session.add(large);  // the same rows: one more page
  session.add(small);  // no place
  session.add(smaller);
  EXPECT_EQ(session.step().size(), 2u);
  EXPECT_EQ(session.num_running(), 2u);
  EXPECT_EQ(session.num_waiting(), 2u);
  EXPECT_EQ(session.pages().num_free(), 2);
  session.remove(1);
  EXPECT_EQ(session.step().size(), 2u);
  const auto other = request_of(5, 0, 30, 9);
  session.add(other);  // no rows until the large one has ended
  std::map<RequestId, Tokens> answers;
  run(session, answers);
  EXPECT_EQ(answers[3], decode_alone(model, smaller));
  EXPECT_EQ(answers[4], decode_alone(model, other));
  EXPECT_EQ(session.pages().num_free(), 8);
}

TEST(Session, EndsAtTheContext) {
  const auto model = golden_model();
  Session session(model);
  auto request = request_of(3, 0, model.spec().max_positions - 3, 64);
  session.add(request);
  std::map<RequestId, Tokens> answers;
  run(session, answers);
  EXPECT_EQ(answers[0].size(), 3u);
  EXPECT_EQ(answers[0], decode_alone(model, request));
}

TEST(Session, LogitsThatAreNotFiniteEndTheirRequestAlone) {
  tensor::TensorMap weights;
  for (const auto& [name, value] : tensor::load_tensors("tests/golden/model/llama-tied/model.safetensors")) {
    weights.emplace(name.starts_with("model.") ? name.substr(6) : name, value);
  }
  weights["lm_head.weight"] = weights.at("embed_tokens.weight").clone();
  weights.at("embed_tokens.weight")[7].fill_(std::numeric_limits<float>::infinity());
  const Model model(golden_model().spec(), weights, {torch::kCPU, torch::kFloat}, {"", weights_hash(weights)});
  Session session(model);
  for (const Tokens& tokens : {Tokens{1, 2, 3}, Tokens{1, 7, 3}, Tokens{4, 5}}) session.add({.tokens = tokens, .name = "a request"});
  const auto chosen = session.step();
  ASSERT_EQ(chosen.size(), 3u);
  EXPECT_FALSE(chosen[0].finish);
  EXPECT_EQ(chosen[1].finish, Finish::kNotFinite);
  EXPECT_FALSE(chosen[2].finish);
  EXPECT_EQ(session.num_running(), 2u);
}

TEST(Session, RefusesWhatItCannotServe) {
  const auto model = golden_model();
  EXPECT_ERROR(Session(model, {.max_batch = 0}), ErrorKind::kUsage, "max_batch is 0; expected 1 or more");
  Session session(model, {.cache_rows = 64, .page_rows = 8});
  EXPECT_ERROR(session.add(request_of(1, 0, 30, 40)), ErrorKind::kUsage,
               "request 1 and its answer take 9 pages of 8 rows of the KV cache, which has 8: allow fewer new tokens or more rows");
  EXPECT_ERROR(session.add({.tokens = {1, -1}, .name = "that"}), ErrorKind::kMismatch,
               "that: token id -1 is outside the model's vocabulary");
  EXPECT_TRUE(session.is_empty());
}

}  // namespace
}  // namespace quiver::model
