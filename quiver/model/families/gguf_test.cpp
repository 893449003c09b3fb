// What the metadata of a GGUF file means, and what it leaves to the architecture.
#include "quiver/model/families/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "quiver/io/gguf_test_support.h"
#include "quiver/model/families.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

using io::raw;
using io::raw_string;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

/// A GGUF file of metadata, and of tensors in F32.
class Metadata {
 public:
  /// With the sizes that all architectures need: 2 heads of 8 in a width of 32.
  explicit Metadata(const std::string& architecture, std::int32_t num_layers = 6) : prefix_(architecture + ".") {
    add("general.architecture", 8, raw_string(architecture));
    for (const auto& [key, value] : {std::pair("embedding_length", 32),
                                     {"attention.head_count", 2},
                                     {"feed_forward_length", 24},
                                     {"context_length", 64},
                                     {"attention.key_length", 8},
                                     {"attention.value_length", 8}}) {
      count(key, value);
    }
    count("block_count", num_layers);
    for (const char* key : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"}) number(key, 1e-5F);
    tensor("token_embd.weight", {32, 3});
  }
  Metadata& count(const std::string& key, std::int32_t value) { return set(key, 5, raw(value)); }
  Metadata& number(const std::string& key, float value) { return set(key, 6, raw(value)); }
  Metadata& flag(const std::string& key, bool value) { return set(key, 7, raw(value)); }
  Metadata& word(const std::string& key, const std::string& value) { return set(key, 8, raw_string(value)); }
  Metadata& flags(const std::string& key, const std::string& zeros_and_ones) {
    std::string bytes;
    for (const char c : zeros_and_ones) bytes += static_cast<char>(c - '0');
    return set(key, 9, raw<std::uint32_t>(7) + raw<std::uint64_t>(bytes.size()) + bytes);
  }
  Metadata& counts(const std::string& key, const std::vector<std::int32_t>& values) {
    std::string bytes;
    for (const auto value : values) bytes += raw(value);
    return set(key, 9, raw<std::uint32_t>(5) + raw<std::uint64_t>(values.size()) + bytes);
  }
  Metadata& tensor(const std::string& name, const std::vector<std::uint64_t>& dims, std::vector<float> values = {}) {
    std::size_t size = 1;
    for (const auto dim : dims) size *= dim;
    values.resize(size);
    ++num_tensors_;
    infos_ += io::tensor_info(name, dims, 0, data_.size());
    for (const float value : values) data_ += raw(value);
    data_.resize((data_.size() + 31) / 32 * 32);
    return *this;
  }
  ModelSpec spec() const {
    std::string values;
    for (const auto& [key, value] : values_) values += raw_string(key) + value;
    std::string file = io::head(num_tensors_, values_.size()) + values + infos_;
    file.resize((file.size() + 31) / 32 * 32);
    file += data_;
    return spec_from_gguf(io::GgufView::parse(std::as_bytes(std::span(file)), "a.gguf"));
  }
  std::string error() const {
    return error_of([&] { static_cast<void>(spec()); });
  }

 private:
  Metadata& set(const std::string& key, std::uint32_t type, const std::string& value) { return add(prefix_ + key, type, value); }
  Metadata& add(const std::string& key, std::uint32_t type, const std::string& value) {
    values_[key] = raw(type) + value;
    return *this;
  }

  std::string prefix_, infos_, data_;
  std::map<std::string, std::string> values_;
  std::uint64_t num_tensors_ = 0;
};

std::vector<std::int64_t> windows_of(const ModelSpec& spec) {
  std::vector<std::int64_t> windows;
  for (const auto& layer : spec.layers) windows.push_back(layer.window);
  return windows;
}

std::vector<std::int64_t> ropes_of(const ModelSpec& spec) {
  std::vector<std::int64_t> ropes;
  for (const auto& layer : spec.layers) ropes.push_back(layer.rope);
  return ropes;
}

TEST(GgufMetadata, LeavesGemma2sWindowsAndCapsToTheArchitecture) {
  const auto spec = Metadata("gemma2").spec();
  EXPECT_THAT(windows_of(spec), ElementsAre(4096, 0, 4096, 0, 4096, 0));
  EXPECT_EQ(spec.block.attention.cap, 50);
  EXPECT_EQ(spec.edges.logit_cap, 30);
  EXPECT_EQ(spec.edges.embedding_scale, std::sqrt(32.0));
  EXPECT_EQ(spec.block.norm.offset, 0);
  EXPECT_EQ(Metadata("gemma2").number("attn_logit_softcapping", 2).spec().block.attention.cap, 2);
  EXPECT_THAT(windows_of(Metadata("gemma2").count("attention.sliding_window", 7).spec()), ElementsAre(7, 0, 7, 0, 7, 0));
}

TEST(GgufMetadata, ScalesScoresByTheHeadButInTheLargestGemmas) {
  for (const auto& [architecture, wide_layers] : {std::pair("gemma2", 46), {"gemma3", 62}}) {
    EXPECT_EQ(Metadata(architecture).spec().block.attention.score_scale(), 1 / std::sqrt(8.0));
    EXPECT_EQ(Metadata(architecture, wide_layers).spec().block.attention.score_scale(), 1 / std::sqrt(16.0));
    EXPECT_EQ(Metadata(architecture, wide_layers).number("attention.scale", 0.5F).spec().block.attention.score_scale(), 0.5);
  }
  EXPECT_EQ(Metadata("granite").spec().block.attention.score_scale(), 1 / std::sqrt(8.0));
  EXPECT_EQ(Metadata("granite").number("attention.scale", 0.5F).spec().block.attention.score_scale(), 0.5);
}

TEST(GgufMetadata, ReadsWindowsOfGemma3) {
  const auto all = Metadata("gemma3").spec();
  EXPECT_THAT(windows_of(all), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(ropes_of(all), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_EQ(all.edges.logit_cap, 0);
  const auto with = [] { return Metadata("gemma3").count("attention.sliding_window", 7); };
  EXPECT_THAT(windows_of(with().spec()), ElementsAre(7, 7, 7, 7, 7, 0));
  EXPECT_THAT(ropes_of(with().spec()), ElementsAre(1, 1, 1, 1, 1, 0));
  EXPECT_THAT(windows_of(with().count("attention.sliding_window_pattern", 3).spec()), ElementsAre(7, 7, 0, 7, 7, 0));
  EXPECT_THAT(windows_of(with().count("attention.sliding_window_pattern", 0).spec()), ElementsAre(7, 7, 7, 7, 7, 7));
  EXPECT_THAT(windows_of(with().flags("attention.sliding_window_pattern", "100011").spec()), ElementsAre(7, 0, 0, 0, 7, 7));
  EXPECT_THAT(windows_of(with().counts("attention.sliding_window_pattern", {0, 1, 0, 0, 0, 1}).spec()), ElementsAre(0, 7, 0, 0, 0, 7));
  EXPECT_EQ(with().flags("attention.sliding_window_pattern", "10").error(),
            "bad format: a.gguf: gemma3.attention.sliding_window_pattern has 2 entries for 6 layers; expected one each");
  EXPECT_THAT(with().count("attention.sliding_window_pattern", -1).error(), HasSubstr("sliding_window_pattern is -1; expected 0 or more"));
  EXPECT_THAT(with().word("attention.sliding_window_pattern", "x").error(), HasSubstr("is a string; expected an integer"));
  EXPECT_THAT(Metadata("gemma3").count("attention.sliding_window", -3).error(), HasSubstr("an attention window is -3"));
}

TEST(GgufMetadata, HasTwoRotationsInGemma3) {
  auto file = Metadata("gemma3").count("attention.sliding_window", 7).number("rope.freq_base", 1e6F);
  file.word("rope.scaling.type", "linear").number("rope.scaling.factor", 8);
  const auto ropes = file.spec().ropes;
  ASSERT_EQ(ropes.size(), 2u);
  EXPECT_EQ(ropes[0].theta, 1e6);
  EXPECT_EQ(ropes[0].factor, 8);
  EXPECT_EQ(ropes[1].theta, 1e4);
  EXPECT_EQ(ropes[1].type, RopeSpec::Type::kDefault);
  EXPECT_EQ(file.number("rope.freq_base_swa", 500).spec().ropes[1].theta, 500);
}

TEST(GgufMetadata, HasWindowsInPhi3AndInNoFamilyThatDropsThem) {
  EXPECT_THAT(windows_of(Metadata("phi3", 2).count("attention.sliding_window", 7).spec()), ElementsAre(7, 7));
  EXPECT_THAT(windows_of(Metadata("phi3", 2).count("attention.sliding_window", 0).spec()), ElementsAre(0, 0));
  EXPECT_EQ(Metadata("olmo2").count("attention.sliding_window", 7).error(),
            "unsupported: a.gguf: olmo2.attention.sliding_window is 7, which is not supported; expected 0");
}

TEST(GgufMetadata, LeavesEveryFourthLayerOfSmolLm3Unrotated) {
  EXPECT_THAT(ropes_of(Metadata("smollm3", 9).spec()), ElementsAre(0, 0, 0, kNoRope, 0, 0, 0, kNoRope, 0));
}

TEST(GgufMetadata, TellsBiasesAndTopologyByTensors) {
  const auto plain = Metadata("stablelm").spec();
  EXPECT_FALSE(plain.block.attention.has_qkv_bias || plain.block.attention.has_output_bias || plain.block.mlp.has_bias);
  EXPECT_EQ(plain.block.topology, Topology::kParallelShared);
  EXPECT_TRUE(plain.tie_word_embeddings);
  auto file = Metadata("stablelm").tensor("blk.0.ffn_norm.weight", {32}).tensor("output.weight", {32, 3});
  EXPECT_EQ(file.spec().block.topology, Topology::kSequential);
  EXPECT_FALSE(file.spec().tie_word_embeddings);
  EXPECT_TRUE(file.tensor("blk.0.attn_qkv.bias", {32}).spec().block.attention.has_qkv_bias);
  EXPECT_TRUE(file.tensor("blk.0.attn_output.bias", {32}).spec().block.attention.has_output_bias);
  EXPECT_TRUE(file.tensor("blk.0.ffn_down.bias", {32}).spec().block.mlp.has_bias);
  EXPECT_TRUE(file.tensor("output.bias", {3}).spec().edges.has_head_bias);
}

TEST(GgufMetadata, ReadsRopeScaling) {
  const auto rope = [](const Metadata& file) { return file.spec().ropes.at(0); };
  EXPECT_EQ(rope(Metadata("llama")).type, RopeSpec::Type::kDefault);
  EXPECT_EQ(rope(Metadata("llama").number("rope.scaling.factor", 4).word("rope.scaling.type", "none")).factor, 1);
  EXPECT_EQ(rope(Metadata("llama").number("rope.scaling.factor", 0)).type, RopeSpec::Type::kDefault);
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear"}) {  // the second is the older one
    EXPECT_EQ(rope(Metadata("llama").number(key, 4)).type, RopeSpec::Type::kLinear);
    EXPECT_EQ(rope(Metadata("llama").number(key, 4)).factor, 4);
  }
  auto yarn = Metadata("qwen2").word("rope.scaling.type", "yarn");
  EXPECT_THAT(yarn.error(), HasSubstr("no key 'qwen2.rope.scaling.factor'"));
  yarn.number("rope.scaling.factor", 4).count("rope.scaling.original_context_length", 16);
  EXPECT_EQ(rope(yarn).original_context, 16);
  EXPECT_EQ(rope(yarn).attention_factor, 0.1 * std::log(4.0) + 1);
  EXPECT_EQ(rope(yarn.number("rope.scaling.yarn_attn_factor", 1.5F)).attention_factor, 1.5);
  EXPECT_THAT(yarn.number("rope.scaling.yarn_ext_factor", 0.5F).error(), HasSubstr("qwen2.rope.scaling.yarn_ext_factor other than 1"));
  EXPECT_EQ(Metadata("llama").word("rope.scaling.type", "su").error(),
            "unsupported: a.gguf: llama.rope.scaling.type is 'su', which is not supported; expected none, linear, yarn or longrope");
}

TEST(GgufMetadata, ReadsRopeFactorsAsDivisors) {
  const auto with = [](const char* architecture) { return Metadata(architecture); };
  const auto llama = with("llama").tensor("rope_freqs.weight", {4}, {1, 2, 4, 8}).spec();
  EXPECT_EQ(llama.ropes[0].type, RopeSpec::Type::kDivided);
  EXPECT_THAT(llama.ropes[0].divisors, ElementsAre(1, 2, 4, 8));
  EXPECT_DOUBLE_EQ(rope_frequencies(llama.ropes[0], 64)[2], std::pow(10000.0, -0.5) / 4);
  EXPECT_EQ(essence(spec_from_json(spec_to_json(llama), "copy"))[5][0][11], essence(llama)[5][0][11]);  // the divisors
  auto phi = with("phi3").tensor("rope_factors_long.weight", {4}, {5, 6, 7, 8});
  EXPECT_THAT(phi.error(), HasSubstr("has one of the tensors 'rope_factors_long.weight' and 'rope_factors_short.weight'"));
  phi.tensor("rope_factors_short.weight", {4}, {1, 2, 3, 4}).count("rope.scaling.original_context_length", 16);
  const auto rope = phi.number("rope.scaling.attn_factor", 1.25F).spec().ropes.at(0);
  EXPECT_THAT(rope.divisors, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(rope.long_divisors, ElementsAre(5, 6, 7, 8));
  EXPECT_EQ(rope.original_context, 16);
  EXPECT_EQ(rope.attention_factor, 1.25);
}

TEST(GgufMetadata, RefusesBadRopeFactors) {
  const auto freqs = [](const std::vector<float>& values) {
    return Metadata("llama").tensor("rope_freqs.weight", {values.size()}, values);
  };
  EXPECT_THAT(freqs({1, 2, 3}).error(), HasSubstr("3 rope factors for 4 frequencies"));
  EXPECT_THAT(freqs({1, 2, 3, 0}).error(), HasSubstr("a rope factor is 0"));
  EXPECT_THAT(freqs({1, 2, 3, std::numeric_limits<float>::quiet_NaN()}).error(), HasSubstr("a rope factor is nan"));
  EXPECT_THAT(freqs({1, 2, 3, 4}).number("rope.scaling.factor", 4).error(), HasSubstr("'linear' beside a tensor of rope factors"));
  EXPECT_THAT(freqs({1, 2, 3, 4}).word("rope.scaling.type", "yarn").error(), HasSubstr("'yarn' beside a tensor of rope factors"));
  EXPECT_THAT(Metadata("llama").tensor("rope_freqs.weight", {2, 2}).error(), HasSubstr("F32 with 2 dimensions; expected one of F32"));
  EXPECT_THAT(Metadata("phi3").word("rope.scaling.type", "longrope").error(), HasSubstr("no tensor 'rope_factors_long.weight'"));
}

TEST(GgufMetadata, RefusesByKeyAndValue) {
  EXPECT_EQ(Metadata("qwen2").count("expert_count", 8).error(),
            "unsupported: a.gguf: qwen2.expert_count is 8, which is not supported; expected 0");
  EXPECT_THAT(Metadata("llama").count("attention.value_length", 9).error(), HasSubstr("llama.attention.value_length is 9"));
  EXPECT_THAT(Metadata("gemma3").flag("attention.causal", false).error(), HasSubstr("gemma3.attention.causal is false"));
  EXPECT_THAT(Metadata("granite").flag("rope.scaling.finetuned", false).error(), HasSubstr("granite.rope.scaling.finetuned is false"));
  EXPECT_THAT(Metadata("granite").counts("deepstack_mapping", {1}).error(), HasSubstr("granite.deepstack_mapping is not supported"));
  for (const char* architecture : {"llama", "smollm3", "granite"}) {
    EXPECT_THAT(Metadata(architecture).count("rope.dimension_count", 4).error(),
                HasSubstr(std::string("a part of a head (") + architecture + ".rope.dimension_count) is not supported"));
  }
  EXPECT_EQ(Metadata("phi3").count("rope.dimension_count", 4).spec().ropes[0].rotary_dim, 4);
  EXPECT_THAT(Metadata("phi3").count("rope.dimension_count", 3).error(), HasSubstr("3 of the 8 numbers of a head are rotated"));
  EXPECT_THAT(Metadata("stablelm").tensor("blk.0.attn_q_norm.weight", {8}).error(),
              HasSubstr("the tensor 'blk.0.attn_q_norm.weight' in a model of architecture 'stablelm' is not supported"));
  EXPECT_THAT(Metadata("gptneox").error(), HasSubstr("the metadata has no key 'gptneox.use_parallel_residual'"));
  EXPECT_THAT(Metadata("gemma").count("block_count", 1 << 30).error(), HasSubstr("number of layers is 1073741824; expected 1 to 4096"));
  EXPECT_EQ(Metadata("gptj").error(),
            "unsupported: a.gguf: architecture 'gptj' is not supported; expected llama, qwen2, qwen3, smollm3, granite, olmo2, phi2, phi3, "
            "stablelm, gptneox, gpt2, gemma, gemma2 or gemma3");
}

}  // namespace
}  // namespace quiver::model
