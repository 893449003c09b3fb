#include "quiver/eval/score.h"

#include <gtest/gtest.h>

#include <torch/utils.h>
#include <limits>

#include <limits>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/data/encode.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/smollm2.h"

namespace quiver::eval {
namespace {

TEST(ScoreSequences, EqualsTransformersOnTheDefaultBase) {
  const auto path = testing::smollm2_path();
  if (path.empty()) GTEST_SKIP() << "the default base model is not in the cache; run 'quiver fetch'";
  const auto model = model::load_model(path, {torch::kCPU, torch::kFloat});
  const auto tokenizer = text::load_tokenizer(path);
  const auto requests = io::read_json_file("tests/golden/smollm2/scores.json").at("requests");
  ASSERT_EQ(requests.size(), 40u);
  std::vector<forest::Sequence> sequences;
  for (const auto& request : requests) {
    SCOPED_TRACE(request.dump());
    sequences.push_back(
        data::encode_request(tokenizer, request.at("context").get<std::string>(), request.at("continuation").get<std::string>()));
    const auto& tokens = sequences.back().tokens;
    const std::vector<std::int32_t> continuation(tokens.end() - sequences.back().num_targets, tokens.end());
    EXPECT_EQ(continuation, request.at("continuation_ids").get<std::vector<std::int32_t>>());
    EXPECT_EQ(tokens.size() - continuation.size(), request.at("context_tokens").get<std::size_t>());
  }
  NoProgress progress;
  const auto scores = score_sequences(model, sequences, {}, progress);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_NEAR(scores[i].log_prob, requests[i].at("logprob").get<double>(), 1e-3 * static_cast<double>(scores[i].token_log_probs.size()));
    EXPECT_EQ(scores[i].is_greedy, requests[i].at("is_greedy").get<bool>());
    const auto expected = requests[i].at("token_logprobs").get<std::vector<double>>();
    ASSERT_EQ(scores[i].token_log_probs.size(), expected.size());
    for (std::size_t t = 0; t < expected.size(); ++t) EXPECT_NEAR(scores[i].token_log_probs[t], expected[t], 1e-3) << t;
  }
}

TEST(ScoreSequences, DoesNotDependOnBatching) {
  const auto model = model::load_model("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
  std::vector<forest::Sequence> sequences;
  for (std::int32_t i = 0; i < 30; ++i) {
    forest::Sequence sequence;
    for (std::int32_t t = 0; t < 4 + i % 7; ++t) sequence.tokens.push_back(5 + t * (i % 3 + 1));
    sequence.num_targets = 1 + i % 3;
    sequences.push_back(sequence);
  }
  NoProgress progress;
  const auto together = score_sequences(model, sequences, {}, progress);
  const auto one_by_one = score_sequences(model, sequences, {.max_batch_rows = 1}, progress);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_NEAR(together[i].log_prob, one_by_one[i].log_prob, 1e-4);
    EXPECT_EQ(together[i].token_log_probs.size(), static_cast<std::size_t>(sequences[i].num_targets));
    EXPECT_EQ(together[i].is_greedy, one_by_one[i].is_greedy);
  }
}

TEST(ScoreSequences, NamesTheFirstWhoseLogitsAreNotFinite) {
  auto weights = tensor::load_tensors("tests/golden/model/llama-tied/model.safetensors");
  tensor::TensorMap stripped;
  for (const auto& [name, value] : weights) stripped.emplace(name.starts_with("model.") ? name.substr(6) : name, value.clone());
  stripped.at("embed_tokens.weight")[7].fill_(std::numeric_limits<float>::quiet_NaN());
  auto config = model::load_model("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat}).spec();
  config.tie_word_embeddings = false;  // the head stays finite, so that only inputs with token 7 are wrong
  stripped["lm_head.weight"] = weights.at("model.embed_tokens.weight");
  const model::Model model(config, stripped, {torch::kCPU, torch::kFloat}, {"", model::weights_hash(stripped)});
  const std::vector<forest::Sequence> sequences = {{{1, 2, 3}, 1}, {{7, 2, 3}, 2}};
  NoProgress progress;
  EXPECT_EQ(testing::message_of(ErrorKind::kMismatch,
                                [&] {
                                  score_sequences(model, sequences, {.names = {"the base with adapter 'a'", {"r:1", "r:2"}}}, progress);
                                }),
            "the logits after r:2 are not finite: the base with adapter 'a' overflows (a scaling too large?)");
  EXPECT_EQ(testing::message_of(ErrorKind::kMismatch, [&] { score_sequences(model, sequences, {}, progress); }),
            "the logits after prompt 1 are not finite: the base or an adapter overflows (a scaling too large?)");
}

TEST(ScoreRuns, CutsInOrderAndCountsASharedPrefixOnce) {
  const std::vector<forest::Sequence> sequences = {{{1, 2, 3, 4}, 1}, {{1, 2, 3, 5}, 1}, {{9, 2}, 1}, {{1, 2, 3, 4, 5, 6, 7, 8}, 1}};
  EXPECT_EQ(score_runs(sequences, 5), (std::vector<std::size_t>{2, 3, 4}));
  EXPECT_EQ(score_runs(sequences, 7), (std::vector<std::size_t>{3, 4}));
  EXPECT_EQ(score_runs(sequences, 1), (std::vector<std::size_t>{1, 2, 3, 4}));
  EXPECT_TRUE(score_runs({}, 5).empty());
}

TEST(ScoreSequences, RefusesASequenceBeyondTheContext) {
  const auto model = model::load_model("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
  const std::vector<forest::Sequence> sequences = {
      {{1, 2}, 1}, {std::vector<std::int32_t>(static_cast<std::size_t>(model.spec().max_positions) + 2, 3), 1}};
  NoProgress progress;
  EXPECT_ERROR(score_sequences(model, sequences, {}, progress), ErrorKind::kUsage, "sequence 1 has ");
  auto named = sequences;
  named[1].name = "t.jsonl:3 (task 't')";
  EXPECT_ERROR(check_context(model, named), ErrorKind::kUsage, "t.jsonl:3 (task 't') has ");
}

}  // namespace
}  // namespace quiver::eval
