// GGUF files against the folders that they were made of, and against transformers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf_model.h"
#include "quiver/io/gguf_test_support.h"
#include "quiver/io/json.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/model/test_support.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

using quiver::testing::gguf_file;
using quiver::testing::kGgufModels;

const tensor::Placement kExact{torch::kCPU, torch::kDouble};

class GgufModels : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string name_ = GetParam();
  const std::optional<std::int64_t> context_ = name_ == "phi3-long" ? std::optional<std::int64_t>(128) : std::nullopt;
  const Model folder_ = load_model(kGgufModels / name_, kExact, {.context = context_});
  const Model file_ = load_model(gguf_file(kGgufModels / name_), kExact, {.context = context_});
};

TEST_P(GgufModels, HaveTheWeightsOfTheFolder) {
  const auto expected = folder_.weights(), found = file_.weights();
  ASSERT_EQ(found.size(), expected.size());
  const double offset = folder_.spec().block.norm.offset;
  const std::string prefix = folder_.spec().names.prefix;
  std::set<std::string> norms;
  for (const auto& slot : gguf_slots(folder_.spec())) {
    if (slot.is_norm) norms.insert(prefix + slot.name + ".weight");
  }
  for (const auto& [name, weight] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(torch::equal(found.at(name), norms.contains(name) ? weight + offset : weight)) << name;
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
  const io::GgufModel file(gguf_file(kGgufModels / name_));
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

INSTANTIATE_TEST_SUITE_P(Golden, GgufModels, ::testing::ValuesIn(quiver::testing::golden_cases(kGgufModels)), quiver::testing::case_name);

TEST(GgufModels, CoverEveryArchitecture) {
  std::vector<std::string> architectures, covered;
  for (const auto& family : families()) {
    if (family.gguf_architecture != nullptr) architectures.emplace_back(family.gguf_architecture);
  }
  for (const auto& name : quiver::testing::golden_cases(kGgufModels)) {
    covered.push_back(io::GgufModel(gguf_file(kGgufModels / name)).view().require_string("general.architecture"));
  }
  EXPECT_THAT(covered, ::testing::IsSupersetOf(architectures));
}

/// A copy of a golden file with changes, opened.
class ChangedGguf : public ::testing::Test {
 protected:
  ChangedGguf() { fs::create_directories(folder_); }
  ~ChangedGguf() override { io::remove_tree(folder_); }

  /// The message for the file of a case in which each text of the first kind is the second instead.
  std::string error(const std::string& name, const std::vector<std::pair<std::string, std::string>>& changes) {
    auto bytes = io::read_text_file(kGgufModels / name / "model.gguf");
    for (const auto& [from, to] : changes) {
      const auto place = bytes.find(from);
      EXPECT_NE(place, std::string::npos) << from;
      EXPECT_EQ(from.size(), to.size());
      bytes.replace(place, from.size(), to);
    }
    io::write_file_atomic(folder_ / "changed.gguf", bytes);
    return testing::error_of([&] { load_model(folder_ / "changed.gguf", kExact); });
  }
  /// A tensor's description in a file: its name, dimensions (innermost first) and type.
  static std::string info(const std::string& name, const std::vector<std::uint64_t>& dims, std::uint32_t type) {
    const auto bytes = io::tensor_info(name, dims, type, 0);
    return bytes.substr(0, bytes.size() - sizeof(std::uint64_t));
  }
  fs::path folder_ = fs::path(::testing::TempDir()) / ("quiver-gguf-" + std::to_string(::getpid()));
};

constexpr std::uint32_t kBf16 = 30;

TEST_F(ChangedGguf, IsRefusedByTensorAndFile) {
  EXPECT_THAT(error("llama-linear", {{"blk.1.ffn_gate.weight", "blk.1.ffn_gape.weight"}}),
              HasSubstr("changed.gguf: tensor 'blk.1.ffn_gape.weight' has no place in a model of family 'llama'"));
  EXPECT_THAT(error("llama-linear", {{"blk.1.ffn_gate.weight", "blk.9.ffn_gate.weight"}}),
              HasSubstr("changed.gguf: tensor 'blk.9.ffn_gate.weight' has no place"));
  EXPECT_THAT(error("llama-linear", {{info("output_norm.weight", {16}, 0), info("output_norm.weight", {16}, 24)}}),
              AllOf(HasSubstr("unsupported: "), HasSubstr("changed.gguf: tensor 'output_norm.weight' is I8; Quiver reads F32, F16, ")));
  EXPECT_THAT(error("llama-linear", {{info("blk.0.attn_q.weight", {16, 16}, kBf16), info("blk.0.attn_q.weight", {16, 15}, kBf16)}}),
              HasSubstr("changed.gguf: tensor 'blk.0.attn_q' has 15 rows, which do not divide into 4"));
  EXPECT_THAT(error("llama-linear", {{info("blk.0.attn_v.weight", {16, 8}, kBf16), info("blk.0.attn_v.weight", {16, 7}, kBf16)}}),
              HasSubstr("tensor 'layers.0.self_attn.v_proj.weight' of the base model is"));
}

TEST_F(ChangedGguf, OfFusedMapsIsRefusedWhereTheirRowsAreOthers) {
  EXPECT_THAT(error("llama-fused", {{info("blk.0.attn_qkv.weight", {16, 48}, kBf16), info("blk.0.attn_qkv.weight", {16, 47}, kBf16)}}),
              HasSubstr("changed.gguf: tensor 'blk.0.attn_qkv.weight' has 47 rows; q, k and v have 48"));
  EXPECT_THAT(error("llama-fused", {{"blk.0.ffn_gate.bias", "blk.0.attn_q.weight"}}),
              HasSubstr("changed.gguf: tensor 'blk.0.attn_q.weight' is there twice: alone, and as a part of a fused one"));
  EXPECT_THAT(error("gpt_neox", {{info("blk.0.attn_qkv.bias", {48}, 0), info("blk.0.attn_qkv.bias", {47}, 0)}}),
              HasSubstr("changed.gguf: tensor 'blk.0.attn_qkv' has 47 rows, which do not divide into 6"));
}

}  // namespace
}  // namespace quiver::model
