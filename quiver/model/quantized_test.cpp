// Models whose weights stay in the blocks of their file, against the same file loaded dense.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>

#include "quiver/model/decoder.h"
#include "quiver/model/quantized_test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

torch::Tensor logits_of(const Model& model, std::int64_t length) {
  const torch::InferenceMode inference;
  RandomStream random(3, "tokens");
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(model.spec().vocab_size))));
  }
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, tokens);
  return model.head().logits(hidden_of_all(model, forest_rows(forest)));
}

/// GPT-Neo is not known to llama.cpp, a file does not tell which layers of SmolLM3 rotate, and the last two have windows.
std::vector<std::string> cases() {
  auto names = testing::golden_cases(testing::kFamilies);
  for (const char* lost : {"gpt_neo", "gpt_neo-default", "smollm3-window", "mistral", "qwen2-window"}) std::erase(names, lost);
  return names;
}

class Quantized : public ::testing::TestWithParam<std::string> {
 protected:
  const QuantizedFile file_{GetParam()};
};

TEST_P(Quantized, HasTheWeightsOfTheFile) {
  const auto dense = file_.load(Weights::kDense), quantized = file_.load(Weights::kQuantized);
  EXPECT_TRUE(quantized.is_quantized());
  EXPECT_FALSE(dense.is_quantized());
  EXPECT_EQ(quantized.fingerprint(), dense.fingerprint());
  EXPECT_NE(quantized.content_hash(), dense.content_hash());
  EXPECT_EQ(quantized.num_parameters(), dense.num_parameters());
  EXPECT_TRUE(torch::equal(quantized.embedding(), dense.embedding()));
  const auto expected = dense.weights(), found = quantized.weights();
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, weight] : expected) EXPECT_TRUE(torch::equal(found.at(name), weight)) << name;
}

TEST_P(Quantized, ComputesWhatDenseWeightsCompute) {
  const auto dense = file_.load(Weights::kDense), quantized = file_.load(Weights::kQuantized);
  for (const std::int64_t length : {1, 12}) {
    const auto expected = logits_of(dense, length), found = logits_of(quantized, length);
    EXPECT_LT(((found - expected).abs().max() / expected.abs().max()).item<double>(), 1e-3) << length;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Quantized, ::testing::ValuesIn(cases()), testing::case_name);

TEST(QuantizedFusion, CutsAndStacksRowsOfBlocks) {
  for (const char* name : {"llama", "phi3", "gpt_neox", "phi"}) {
    const QuantizedFile file(name, /*mixes_types=*/false);
    const auto expected = logits_of(file.load(Weights::kDense), 9);
    for (const auto fusion : {Fusion::kSeparate, Fusion::kFused}) {
      const auto found = logits_of(file.load(Weights::kQuantized, fusion), 9);
      EXPECT_LT(((found - expected).abs().max() / expected.abs().max()).item<double>(), 1e-3) << name << " " << fusion_name(fusion);
    }
  }
}

TEST(QuantizedFusion, DoesNotStackBlocksOfTwoFormats) {
  const QuantizedFile file("llama");
  EXPECT_THAT(testing::error_of([&] { file.load(Weights::kQuantized, Fusion::kFused); }),
              AllOf(HasSubstr("unsupported"), HasSubstr("'layers.0.self_attn.qkv_proj'"), HasSubstr("`base_weights=dense`")));
}

TEST(QuantizedErrors, SayWhatIsMissing) {
  const auto load = [](const std::filesystem::path& path, tensor::Placement placement) {
    return testing::error_of([&] { load_model(path, placement, {.base_weights = Weights::kQuantized}); });
  };
  const tensor::Placement exact{torch::kCPU, torch::kFloat};
  EXPECT_THAT(load("tests/golden/model/llama-tied", exact), HasSubstr("holds no linear map in blocks of Q8_0, Q4_0 or Q4_1"));
  EXPECT_THAT(load(testing::gguf_file(testing::kGgufModels / "llama"), exact), HasSubstr("holds no linear map in blocks"));
  EXPECT_THAT(load("tests/golden/model/llama-tied", {torch::kCPU, torch::kBFloat16}),
              HasSubstr("`base_weights=quantized` computes in float32 on the CPU; `device` and `dtype` ask for BFloat16 on cpu"));
}

TEST(QuantizedWeights, AreReplacedByDenseOnes) {
  const QuantizedFile file("llama");
  const auto model = file.load(Weights::kQuantized);
  const auto embedding = torch::ones({model.spec().vocab_size, model.spec().hidden_size});
  const auto changed = model.with_weights({{"embed_tokens.weight", embedding}});
  EXPECT_TRUE(torch::equal(changed.embedding(), embedding));
  EXPECT_TRUE(torch::equal(changed.head().linear.weight().dense(), model.head().linear.weight().dense()));
}

}  // namespace
}  // namespace quiver::model
