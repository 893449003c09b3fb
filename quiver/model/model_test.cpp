#include "quiver/model/model.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "quiver/backend/ops.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/model/generate.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/smollm2.h"

namespace quiver::model {
namespace {

const std::filesystem::path kGolden = "tests/golden/model";
const tensor::Placement kFloat32{torch::kCPU, torch::kFloat};

/// Logits of the given rows of one sequence, or of all.
torch::Tensor logits_of(const Model& model, const std::vector<std::int32_t>& ids, const torch::Tensor& rows = {}) {
  const torch::InferenceMode inference;
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, ids);
  const auto hidden = hidden_of_all(model, forest_rows(forest));
  return (rows.defined() ? hidden.index_select(0, rows) : hidden).matmul(model.head().weight().dense().t());
}

class TinyLlama : public ::testing::TestWithParam<const char*> {};

TEST_P(TinyLlama, GivesTheLogitsAndGreedyTokensOfTransformers) {
  const std::string name = GetParam();
  const auto path = kGolden / (name == "llama-mixed" ? name + ".gguf" : name);
  const auto model = load_model(path, kFloat32);
  const auto golden = tensor::load_tensors(kGolden / (name + ".golden.safetensors"));
  const auto cases = io::read_json_file(kGolden / (name + ".golden.json")).at("cases");
  ASSERT_GE(cases.size(), 2u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const auto ids = cases[i].at("ids").get<std::vector<std::int32_t>>();
    const auto difference = (logits_of(model, ids) - golden.at("logits." + std::to_string(i))).abs().max().item<double>();
    EXPECT_LT(difference, 1e-4) << name << " case " << i;
    const std::vector<std::vector<std::int32_t>> prompts = {ids};
    EXPECT_EQ(generate(model, prompts, {.max_new_tokens = 64})[0], cases[i].at("greedy").get<std::vector<std::int32_t>>());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TinyLlama,
                         ::testing::Values("llama-tied", "llama-sharded", "llama-rope-llama3", "llama-rope-linear", "llama-mixed"));

TEST(SmolLm2, GivesTheLogitsAndGreedyTokensOfTransformers) {
  const auto path = testing::smollm2_path();
  if (path.empty()) GTEST_SKIP() << "the default base model is not in the cache; run 'quiver fetch'";
  const auto model = load_model(path, kFloat32);
  const auto golden = tensor::load_tensors("tests/golden/smollm2/logits.safetensors");
  const auto cases = io::read_json_file("tests/golden/smollm2/prompts.json").at("cases");
  ASSERT_EQ(cases.size(), 32u);
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    prompts.push_back(cases[i].at("ids").get<std::vector<std::int32_t>>());
    const auto rows = torch::tensor(cases[i].at("positions").get<std::vector<std::int64_t>>());
    const auto logits = logits_of(model, prompts.back(), rows);
    const auto key = std::to_string(i) + ".";
    const auto sampled = logits.index_select(1, golden.at("vocabulary").to(torch::kLong));
    EXPECT_LT((sampled - golden.at(key + "logits")).abs().max().item<double>(), 1e-3) << "case " << i;
    const auto top = logits.gather(1, golden.at(key + "top_ids").to(torch::kLong));
    EXPECT_LT((top - golden.at(key + "top_logits")).abs().max().item<double>(), 1e-3) << "case " << i;
    EXPECT_LT((logits.logsumexp(1) - golden.at(key + "logsumexp")).abs().max().item<double>(), 1e-3) << "case " << i;
  }
  // Together, so that prompts leave the batch at different steps.
  const auto results = generate(model, prompts, {.max_new_tokens = 64, .stop_ids = {2}});
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(results[i], cases[i].at("greedy").get<std::vector<std::int32_t>>()) << "case " << i;
  }
}

TEST(LoadLlama, NamesWhatIsWrong) {
  EXPECT_ERROR(load_model("no/such/model", kFloat32), ErrorKind::kNotFound, "no/such/model");
  EXPECT_ERROR(load_model("tests/golden/peft/plain", kFloat32), ErrorKind::kNotFound, "config.json");
  auto weights = tensor::load_tensors(kGolden / "llama-tied" / "model.safetensors");
  tensor::TensorMap stripped;
  for (const auto& [name, value] : weights) stripped.emplace(name.starts_with("model.") ? name.substr(6) : name, value);
  const auto config = load_model(kGolden / "llama-tied", kFloat32).spec();
  auto missing = stripped;
  missing.erase("layers.1.mlp.up_proj.weight");
  EXPECT_ERROR(Model(config, missing, kFloat32, {"", weights_hash(missing)}), ErrorKind::kMismatch, "layers.1.mlp.up_proj.weight");
  auto unknown = stripped;
  unknown.emplace("layers.0.self_attn.q_norm.weight", torch::zeros({4}));
  EXPECT_ERROR(Model(config, unknown, kFloat32, {"", weights_hash(unknown)}), ErrorKind::kUnsupported, "q_norm");
  auto wrong = stripped;
  wrong["norm.weight"] = torch::zeros({3});
  EXPECT_ERROR(Model(config, wrong, kFloat32, {"", weights_hash(wrong)}), ErrorKind::kMismatch, "Float [3]");
}

TEST(Model, UsesAHeadOfItsOwnWithAWarningWhereTheConfigurationSaysTied) {
  const auto weights = tensor::load_tensors(kGolden / "llama-tied" / "model.safetensors");
  tensor::TensorMap stripped;
  for (const auto& [name, value] : weights) stripped.emplace(name.starts_with("model.") ? name.substr(6) : name, value);
  auto config = load_model(kGolden / "llama-tied", kFloat32).spec();
  stripped["lm_head.weight"] = stripped.at("embed_tokens.weight").clone();
  EXPECT_TRUE(Model(config, stripped, kFloat32, {"", weights_hash(stripped)}).warnings().empty());
  stripped["lm_head.weight"][0][0] += 1;
  const Model model(config, stripped, kFloat32, {"", weights_hash(stripped)});
  ASSERT_EQ(model.warnings().size(), 1U);
  EXPECT_EQ(model.warnings()[0],
            "warning: the configuration of base 'llama-tied' says tie_word_embeddings, but its lm_head.weight has values of its own: these "
            "are used");
  EXPECT_TRUE(torch::equal(model.head().weight().dense(), stripped.at("lm_head.weight")));
}

TEST(Config, RefusesWhatItDoesNotCompute) {
  auto config = io::read_json_file(kGolden / "llama-tied" / "config.json");
  const auto refuses = [&config](const char* key, const nlohmann::json& value, ErrorKind kind, const char* part) {
    SCOPED_TRACE(key);
    auto changed = config;
    changed[key] = value;
    EXPECT_ERROR(spec_from_json(changed, "test"), kind, part);
  };
  refuses("model_type", "gpt2", ErrorKind::kUnsupported, "test: model_type 'gpt2' is not supported");
  refuses("attention_bias", true, ErrorKind::kUnsupported, "test: attention_bias is not supported");
  refuses("hidden_act", "gelu", ErrorKind::kUnsupported, "a hidden_act other than silu is not supported");
  refuses("sliding_window", 4096, ErrorKind::kUnsupported, "sliding_window is not supported");
  refuses("num_key_value_heads", 3, ErrorKind::kBadFormat, "4 attention heads are no multiple of 3 key-value heads");
  refuses("hidden_size", -4, ErrorKind::kBadFormat, "hidden size is -4; expected 1 to");
  refuses("vocab_size", std::int64_t{1} << 60, ErrorKind::kBadFormat, "vocabulary size is 1152921504606846976");
  refuses("rms_norm_eps", 0, ErrorKind::kBadFormat, "rms_norm_eps is 0; expected a positive, finite number");
  refuses("rope_scaling", {{"type", "linear"}, {"factor", -2}}, ErrorKind::kBadFormat, "rope factor is -2; expected");
  nlohmann::json llama3 = {
      {"type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}, {"original_max_position_embeddings", 8192}};
  refuses("rope_scaling", llama3, ErrorKind::kBadFormat, "rope high_freq_factor 4 must be above low_freq_factor 4");
  llama3["original_max_position_embeddings"] = 0;
  refuses("rope_scaling", llama3, ErrorKind::kBadFormat, "rope original_max_position_embeddings is 0; expected");
}

TEST(Config, ReadsWhatTransformersReads) {
  auto config = io::read_json_file("tests/golden/model/llama-tied/config.json");
  config["hidden_act"] = "swish";
  config["quantization_config"] = nullptr;
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000.0}};
  EXPECT_EQ(spec_from_json(config, "test").block.attention.rope.type, RopeSpec::Type::kDefault);
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};  // it wins where it says something
  EXPECT_EQ(spec_from_json(config, "test").block.attention.rope.type, RopeSpec::Type::kLinear);
  config["rope_scaling"] = nlohmann::json::object();
  EXPECT_EQ(spec_from_json(config, "test").block.attention.rope.type, RopeSpec::Type::kDefault);
  config["partial_rotary_factor"] = 0.5;
  EXPECT_ERROR(spec_from_json(config, "test"), ErrorKind::kUnsupported, "a partial_rotary_factor other than 1 is not supported");
}

}  // namespace
}  // namespace quiver::model
