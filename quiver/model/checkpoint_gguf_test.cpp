// GGUF files against the folders that they were made of, and against transformers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quiver/io/folder.h"
#include "quiver/io/gguf_model.h"
#include "quiver/io/json.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;

const fs::path kGgufModels = "tests/golden/gguf_models";
const tensor::Placement kExact{torch::kCPU, torch::kDouble};

std::vector<std::string> gguf_cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGgufModels)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

/// The file of a case; the last of its pieces where it has several.
fs::path gguf_file(const std::string& name) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(kGgufModels / name)) {
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  return *std::ranges::max_element(files);
}

class GgufModels : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string name_ = GetParam();
  const std::optional<std::int64_t> context_ = name_ == "phi3-long" ? std::optional<std::int64_t>(128) : std::nullopt;
  const Model folder_ = load_model(kGgufModels / name_, kExact, context_);
  const Model file_ = load_model(gguf_file(name_), kExact, context_);
};

TEST_P(GgufModels, HaveTheWeightsOfTheFolder) {
  const auto expected = folder_.weights(), found = file_.weights();
  ASSERT_EQ(found.size(), expected.size());
  const double offset = folder_.spec().block.norm.offset;  // the file has it in the weights
  for (const auto& [name, weight] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    const bool is_norm = weight.dim() == 1 && name.ends_with("norm.weight");
    EXPECT_TRUE(torch::equal(found.at(name), is_norm ? weight + offset : weight)) << name;
  }
}

TEST_P(GgufModels, HaveTheDescriptionOfTheFolder) {
  // But for what is said in another way: rope factors by tensors, 1 in the norms, epsilons and scales in float32.
  const auto& a = folder_.spec();
  const auto& b = file_.spec();
  const auto plain = [](ModelSpec spec) {
    spec.ropes.clear();
    spec.edges = {};
    spec.block.norm = {};
    spec.block.residual_scale = 1;
    spec.block.attention.scale = {};
    return essence(spec);
  };
  EXPECT_EQ(plain(b), plain(a));
  EXPECT_EQ(b.block.norm.kind, a.block.norm.kind);
  EXPECT_NEAR(b.block.norm.epsilon, a.block.norm.epsilon, 1e-12);
  EXPECT_NEAR(b.block.attention.score_scale(), a.block.attention.score_scale(), 1e-7);
  ASSERT_EQ(b.ropes.size(), a.ropes.size());
  for (std::size_t i = 0; i < a.ropes.size(); ++i) {
    const auto expected = rope_frequencies(a.ropes[i], a.max_positions), found = rope_frequencies(b.ropes[i], b.max_positions);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t j = 0; j < expected.size(); ++j) EXPECT_NEAR(found[j], expected[j], 1e-7 * expected[j]);
    EXPECT_NEAR(b.ropes[i].attention_factor, a.ropes[i].attention_factor, 1e-7);
  }
}

TEST_P(GgufModels, GiveTheLogitsOfTransformers) {
  const torch::NoGradGuard no_grad;
  const auto golden = tensor::load_tensors(kGgufModels / name_ / "golden.safetensors").at("logits");
  const auto tokens = io::read_json_file(kGgufModels / name_ / "golden.json").at("tokens").get<std::vector<std::int32_t>>();
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, tokens);
  const auto logits = file_.head().logits(hidden_of_all(file_, forest_rows(forest)));
  EXPECT_LT((logits - golden).abs().max().item<double>(), 1e-5 * golden.abs().max().item<double>());
}

TEST_P(GgufModels, RowsGoBackAsTheyCame) {
  const io::GgufModel file(gguf_file(name_));
  const auto slots = gguf_slots(file_.spec());
  std::size_t found = 0;
  for (const auto& slot : slots) {
    for (const char* kind : {".weight", ".bias"}) {
      const auto* stored = file.view().find(slot.gguf + kind);
      if (stored == nullptr) continue;
      ++found;
      auto values = torch::empty(stored->shape, torch::kFloat);
      io::dequantize(*stored, std::span(values.data_ptr<float>(), static_cast<std::size_t>(values.numel())));
      const auto ours = from_gguf_rows(slot, values, "test");
      EXPECT_TRUE(torch::equal(to_gguf_rows(slot, ours, "test"), values)) << slot.gguf;
      const bool is_moved = slot.rows != GgufRows::kSame;
      EXPECT_EQ(torch::equal(ours, values), !is_moved) << slot.gguf;
    }
  }
  EXPECT_GT(found, 10u);
}

std::string gguf_test_name(const ::testing::TestParamInfo<std::string>& param) {
  auto name = param.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Golden, GgufModels, ::testing::ValuesIn(gguf_cases()), gguf_test_name);

TEST(GgufModels, CoverEveryArchitecture) {
  std::vector<std::string> architectures, covered;
  for (const auto& family : families()) {
    if (family.gguf_architecture != nullptr) architectures.emplace_back(family.gguf_architecture);
  }
  for (const auto& name : gguf_cases()) {
    covered.push_back(io::GgufModel(gguf_file(name)).view().require_string("general.architecture"));
  }
  EXPECT_THAT(covered, ::testing::IsSupersetOf(architectures));
}

}  // namespace
}  // namespace quiver::model
