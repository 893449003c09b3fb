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
  return (rows.defined() ? hidden.index_select(0, rows) : hidden).matmul(model.head().linear.weight().dense().t());
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
  EXPECT_TRUE(torch::equal(model.head().linear.weight().dense(), stripped.at("lm_head.weight")));
}

TEST(Config, RefusesWhatItDoesNotCompute) {
  auto config = io::read_json_file(kGolden / "llama-tied" / "config.json");
  const auto refuses = [&config](const char* key, const nlohmann::json& value, ErrorKind kind, const char* part) {
    SCOPED_TRACE(key);
    auto changed = config;
    changed[key] = value;
    EXPECT_ERROR(spec_from_json(changed, "test"), kind, part);
  };
  refuses("model_type", "bert", ErrorKind::kUnsupported, "test: model_type 'bert' is not supported; expected llama, mistral, qwen2");
  refuses("hidden_act", "quick_gelu", ErrorKind::kUnsupported, "test: activation 'quick_gelu' is not supported; expected silu, gelu");
  refuses("quantization_config", {{"bits", 4}}, ErrorKind::kUnsupported, "quantization_config is not supported");
  refuses("num_hidden_layers", 5000, ErrorKind::kBadFormat, "number of layers is 5000; expected 1 to 4096");
  refuses("rope_scaling", {{"type", "ntk"}}, ErrorKind::kUnsupported,
          "rope type 'ntk' is not supported; expected default, linear, dynamic");
  refuses("num_key_value_heads", 3, ErrorKind::kBadFormat, "4 attention heads are no multiple of 3 key-value heads");
  refuses("hidden_size", -4, ErrorKind::kBadFormat, "hidden size is -4; expected 1 to");
  refuses("vocab_size", std::int64_t{1} << 60, ErrorKind::kBadFormat, "vocabulary size is 1152921504606846976");
  refuses("rms_norm_eps", 0, ErrorKind::kBadFormat, "the epsilon of norms is 0; expected a positive, finite number");
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
  EXPECT_EQ(spec_from_json(config, "test").ropes.at(0).type, RopeSpec::Type::kDefault);
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};  // it wins where it says something
  EXPECT_EQ(spec_from_json(config, "test").ropes.at(0).type, RopeSpec::Type::kLinear);
  config["rope_scaling"] = nlohmann::json::object();
  EXPECT_EQ(spec_from_json(config, "test").ropes.at(0).type, RopeSpec::Type::kDefault);
  config["partial_rotary_factor"] = 0.5;  // which transformers reads for some types and families
  EXPECT_ERROR(spec_from_json(config, "test"), ErrorKind::kUnsupported, "a partial_rotary_factor other than 1 is not supported");
}

/// config.json of one of tests/golden/families with other values, by key.
nlohmann::json family_config(const std::string& name, const nlohmann::json& changes) {
  auto config = io::read_json_file(std::filesystem::path("tests/golden/families") / name / "config.json");
  config.update(changes);
  return config;
}

std::vector<std::int64_t> windows_of(const std::string& name, const nlohmann::json& changes) {
  std::vector<std::int64_t> windows;
  for (const auto& layer : spec_from_json(family_config(name, changes), "test").layers) windows.push_back(layer.window);
  return windows;
}

TEST(Families, WindowsFollowTheRulesOfTransformers) {
  auto mistral = family_config("mistral", nlohmann::json::object());
  mistral.erase("sliding_window");
  EXPECT_EQ(spec_from_json(mistral, "test").layers[0].window, 4096);  // the default of its class
  EXPECT_EQ(windows_of("mistral", {{"sliding_window", nullptr}}), std::vector<std::int64_t>(4, 0));
  const nlohmann::json types = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(windows_of("mistral", {{"layer_types", types}}), (std::vector<std::int64_t>{0, 5, 0, 5}));
  EXPECT_EQ(windows_of("qwen2-window", {{"layer_types", types}}), (std::vector<std::int64_t>{0, 5, 0, 5}));
  EXPECT_EQ(windows_of("qwen2", {{"layer_types", nullptr}}), std::vector<std::int64_t>(4, 0));  // a number that is off
  EXPECT_EQ(windows_of("gemma2", {{"layer_types", nullptr}}), (std::vector<std::int64_t>{5, 0, 5, 0}));
  EXPECT_EQ(windows_of("gemma3_text", {{"layer_types", nullptr}, {"sliding_window_pattern", 4}}),
            (std::vector<std::int64_t>{5, 5, 5, 0, 5, 5, 5}));
  EXPECT_EQ(windows_of("phi3", {{"layer_types", types}}), std::vector<std::int64_t>(4, 7));  // which it does not read
  EXPECT_EQ(windows_of("gpt_neo", nlohmann::json::object()), (std::vector<std::int64_t>{0, 5, 0, 5}));
}

TEST(Families, RefuseByKeyAndValueWhatIsNotComputed) {
  const auto refuses = [](const char* name, const nlohmann::json& changes, ErrorKind kind, const char* part) {
    SCOPED_TRACE(part);
    EXPECT_ERROR(spec_from_json(family_config(name, changes), "test"), kind, part);
  };
  refuses("phi", {{"qk_layernorm", true}}, ErrorKind::kUnsupported, "test: qk_layernorm is not supported");
  refuses("stablelm", {{"qk_layernorm", true}}, ErrorKind::kUnsupported, "test: qk_layernorm is not supported");
  refuses("gpt2", {{"scale_attn_by_inverse_layer_idx", true}}, ErrorKind::kUnsupported, "scale_attn_by_inverse_layer_idx");
  refuses("gemma", {{"use_bidirectional_attention", true}}, ErrorKind::kUnsupported, "use_bidirectional_attention");
  refuses("gemma2", {{"layer_types", {"full_attention"}}}, ErrorKind::kBadFormat, "layer_types has 1 entries for 4 layers");
  refuses("gemma2", {{"layer_types", {"a", "a", "a", "a"}}}, ErrorKind::kUnsupported, "layer_types holds \"a\"; expected");
  refuses("gpt_neo", {{"attention_types", {{{"global"}, 1}}}}, ErrorKind::kBadFormat, "attention_types describes 1 layers of 4");
  refuses("gpt_neo", {{"attention_types", {{{"strided"}, 4}}}}, ErrorKind::kUnsupported, "attention of type \"strided\"");
  refuses("gpt_neo", {{"attention_types", {1}}}, ErrorKind::kBadFormat, "attention_types holds 1; expected");
  refuses("smollm3", {{"no_rope_layers", {1}}}, ErrorKind::kUnsupported, "a no_rope_layers of another length than num_hidden_layers");
  refuses("stablelm", {{"rope_parameters", {{"partial_rotary_factor", 1.5}}}, {"partial_rotary_factor", 1.5}}, ErrorKind::kBadFormat,
          "partial_rotary_factor is 1.5; expected a number above 0 and at most 1");
  refuses("phi3-short", {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}}}, ErrorKind::kBadFormat,
          "1 rope factors for 4 frequencies");
  refuses("gemma3_text", {{"rope_parameters", {{"full_attention", 3}}}}, ErrorKind::kBadFormat, "full_attention");
  refuses("gpt2", {{"n_embd", std::int64_t{1} << 62}, {"n_inner", nullptr}}, ErrorKind::kBadFormat, "intermediate_size");
  refuses("llama", {{"head_dim", std::int64_t{1} << 62}}, ErrorKind::kBadFormat, "head size is 4611686018427387904; expected 1 to");
  refuses("gpt_neox", {{"num_attention_heads", 7}}, ErrorKind::kBadFormat,
          "3 of the 13 numbers of a head are rotated; expected an even number of 2 to 13");
}

TEST(Families, LongRopeTakesItsLongFactorsWhereAskedForMoreThanTheOriginalContext) {
  auto spec = spec_from_json(family_config("phi3-long", nlohmann::json::object()), "test");
  EXPECT_EQ(spec.max_positions, 128);
  auto usual = spec, longer = spec;
  set_context(usual, {}, "test");
  EXPECT_EQ(usual.max_positions, 16);
  set_context(longer, 17, "test");
  EXPECT_EQ(longer.max_positions, 17);
  EXPECT_NEAR(rope_frequencies(usual.ropes[0], usual.max_positions)[1] / rope_frequencies(longer.ropes[0], longer.max_positions)[1],
              3.0 / 1.1, 1e-12);
  EXPECT_ERROR(set_context(spec, 129, "test"), ErrorKind::kUsage, "test: `context` 129 does not fit the model; expected 1 to 128");
}

}  // namespace
}  // namespace quiver::model
