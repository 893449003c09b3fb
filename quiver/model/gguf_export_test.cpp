// Models written as GGUF files and read again.
#include "quiver/model/gguf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>

#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

using quiver::testing::kFamilies;

/// Model::weights() without the prefix.
tensor::TensorMap by_path(const Model& model) {
  tensor::TensorMap weights;
  const std::string prefix = model.spec().names.prefix;
  for (const auto& [name, weight] : model.weights()) {
    const bool is_head = name.starts_with(model.spec().names.head);
    weights.emplace(is_head ? name : name.substr(prefix.size()), weight);
  }
  return weights;
}

torch::Tensor exported_logits(const Model& model) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, std::vector<std::int32_t>{5, 17, 3, 88, 41, 41, 9, 60, 2, 71, 33, 8});
  const torch::NoGradGuard no_grad;
  return model.head().logits(hidden_of_all(model, forest_rows(forest)));
}

/// GPT-Neo is not known to llama.cpp, a file does not tell which layers of SmolLM3 rotate, and the last two have windows.
std::vector<std::string> exported_cases() {
  auto names = quiver::testing::golden_cases(kFamilies);
  for (const char* lost : {"gpt_neo", "gpt_neo-default", "smollm3-window", "mistral", "qwen2-window"}) std::erase(names, lost);
  return names;
}

class GgufExport : public ::testing::TestWithParam<std::string> {
 protected:
  ~GgufExport() override { fs::remove(file_); }
  Model written(const Model& model, io::GgufType type) const {
    io::write_gguf(file_, gguf_description(model.spec()), gguf_tensors(model.spec(), by_path(model), type));
    return load_model(file_, {torch::kCPU, torch::kDouble});
  }
  const fs::path file_ = fs::path(::testing::TempDir()) / ("quiver-export-" + GetParam() + ".gguf");
};

TEST_P(GgufExport, IsReadAsTheModelThatItWas) {
  const auto model = load_model(kFamilies / GetParam(), {torch::kCPU, torch::kDouble});
  const auto expected = exported_logits(model), found = exported_logits(written(model, io::GgufType::kF32));
  // Epsilons, scales and thetas are float32 in a file.
  EXPECT_LT(((found - expected).abs().max() / expected.abs().max()).item<double>(), 2e-6);
}

INSTANTIATE_TEST_SUITE_P(Golden, GgufExport, ::testing::ValuesIn(exported_cases()), quiver::testing::case_name);

TEST(GgufExportErrors, SayWhatAFileCannotHold) {
  const auto spec_of = [](const char* name) { return load_model(kFamilies / name, {torch::kCPU, torch::kFloat}).spec(); };
  EXPECT_THAT(testing::error_of([&] { gguf_description(spec_of("gpt_neo")); }),
              HasSubstr("no architecture for models of family 'gpt_neo'"));
  EXPECT_THAT(testing::error_of([&] { gguf_description(spec_of("smollm3-window")); }), HasSubstr("does not tell which layers rotate"));
}

TEST(GgufExportErrors, TellOfWindowsThatAreLost) {
  for (const char* name : {"mistral", "qwen2-window", "gemma2", "mistral-full"}) {
    const auto spec = load_spec(kFamilies / name);
    const bool is_lost = std::string_view(name) == "mistral" || std::string_view(name) == "qwen2-window";
    EXPECT_EQ(lost_in_gguf(spec).find("texts above 5 tokens are attended to whole") != std::string::npos, is_lost) << name;
    EXPECT_EQ(gguf_description(spec).contains(gguf_architecture(spec) + ".attention.sliding_window"), std::string_view(name) == "gemma2");
  }
}

}  // namespace
}  // namespace quiver::model
