#include "quiver/recipes/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

using quiver::testing::gguf_file;
using quiver::testing::kFamilies;
using quiver::testing::kGgufModels;

/// A model of tests/golden/families with another's tokenizer, since these have none, and a folder for what is written.
class Export : public ::testing::TestWithParam<std::string> {
 protected:
  ~Export() override { io::remove_tree(folder_); }

  static methods::BaseModel load(const fs::path& path, torch::Dtype dtype) {
    return {path, model::load_model(path, {torch::kCPU, dtype}), text::load_tokenizer("tests/golden/model/llama-tied")};
  }
  static torch::Tensor logits(const model::Model& model) {
    forest::TokenForest forest;
    forest.add_segment(forest::kNoParent, std::vector<std::int32_t>{5, 17, 3, 38, 40, 40, 9, 30, 2, 21, 33, 8});
    const torch::NoGradGuard no_grad;
    return model.head().logits(model::hidden_of_all(model, model::forest_rows(forest)));
  }
  /// The difference as a share of the largest.
  static double error(const torch::Tensor& a, const torch::Tensor& b) { return ((a - b).abs().max() / b.abs().max()).item<double>(); }

  const std::string name_ = GetParam();
  const fs::path folder_ = fs::path(::testing::TempDir()) / ("quiver-export-" + name_);
};

TEST_P(Export, AMergedModelComputesWhatBaseAndAdapterCompute) {
  const auto base = load(kFamilies / name_, torch::kFloat);
  const auto exact = load(kFamilies / name_, torch::kDouble);
  std::optional<adapters::LoraAdapter> adapter;
  auto expected = logits(exact.lm);
  if (fs::exists(kFamilies / name_ / "adapter")) {
    adapter = adapters::load_peft(kFamilies / name_ / "adapter");
    auto wide = *adapter;
    for (auto& [path, pair] : wide.pairs) pair = pair.to(torch::kCPU, torch::kDouble);
    expected = logits(exact.lm.with_linears(adapters::attach(exact.lm.linears(), wide)));
  }
  const ExportOptions options{.form = ExportForm::kHuggingFace, .type = io::GgufType::kF32};
  export_model(base, adapter ? &*adapter : nullptr, {}, options, folder_);
  EXPECT_LT(error(logits(load(folder_, torch::kDouble).lm), expected), 5e-6);
  const auto config = io::read_json_file(folder_ / "config.json");
  EXPECT_EQ(config.value("dtype", config.value("torch_dtype", "")), "float32");
}

TEST_P(Export, TheBaseAloneIsTheSameToTheBit) {
  const auto base = load(kFamilies / name_, torch::kFloat);
  export_model(base, nullptr, {}, {.form = ExportForm::kHuggingFace, .type = io::GgufType::kBF16}, folder_);
  const auto before = tensor::load_tensors(kFamilies / name_ / "model.safetensors");
  const auto after = tensor::load_tensors(folder_ / "model.safetensors");
  for (const auto& [key, weight] : after) {
    const auto found = before.contains(key) ? before.find(key) : before.find("language_model." + key);
    ASSERT_NE(found, before.end()) << key;
    EXPECT_TRUE(weight.equal(found->second)) << key;
  }
  EXPECT_TRUE(logits(load(folder_, torch::kFloat).lm).equal(logits(base.lm)));
}

TEST_P(Export, TheConfigurationIsWrittenAndReadBack) {
  const auto spec = model::load_spec(kFamilies / name_);
  EXPECT_EQ(model::essence(model::spec_from_json(model::spec_to_json(spec), "copy")), model::essence(spec));
}

INSTANTIATE_TEST_SUITE_P(Golden, Export, ::testing::ValuesIn(quiver::testing::golden_cases(kFamilies)), quiver::testing::case_name);

/// A GGUF file becomes the folder that it was made of.
class ExportOfGguf : public Export {};

TEST_P(ExportOfGguf, IsTheFolderThatTheFileWasMadeOf) {
  const auto given = kGgufModels / name_;
  const auto base = load(gguf_file(given), torch::kDouble);
  export_model(base, nullptr, {}, {.form = ExportForm::kHuggingFace, .type = io::GgufType::kF32}, folder_);
  const auto expected = tensor::load_tensors(given / "model.safetensors"), found = tensor::load_tensors(folder_ / "model.safetensors");
  for (const auto& [key, weight] : expected) {
    if (base.lm.spec().tie_word_embeddings && key.starts_with(base.lm.spec().names.head)) continue;
    ASSERT_TRUE(found.contains(key)) << key;
    EXPECT_TRUE(found.at(key).allclose(weight.to(torch::kFloat), /*rtol=*/0, /*atol=*/2e-7))
        << key;  // GGUF norms of Gemma are 1 + w in float32
  }
  EXPECT_LE(found.size(), expected.size());
  const auto wanted = io::read_json_file(given / "config.json"), config = io::read_json_file(folder_ / "config.json");
  EXPECT_EQ(config.at("model_type"), wanted.at("model_type"));
  EXPECT_EQ(config.at("architectures"), wanted.at("architectures"));
  EXPECT_LT(error(logits(load(folder_, torch::kDouble).lm), logits(base.lm)), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Golden, ExportOfGguf, ::testing::ValuesIn(quiver::testing::golden_cases(kGgufModels)), quiver::testing::case_name);

}  // namespace
}  // namespace quiver::recipes
