// Bases in another form than their checkpoint's, and adapters that name either. Of every family.
#include "quiver/methods/adapter_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <filesystem>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/adapters/rows.h"
#include "quiver/base/random.h"
#include "quiver/io/test_support.h"
#include "quiver/model/decoder.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/reference_decoder.h"

namespace quiver::methods {
namespace {

namespace fs = std::filesystem;
using model::Fusion;
using quiver::testing::message_of;
using ::testing::HasSubstr;

using quiver::testing::kFamilies;

/// Every linear map adapted, in float64; `with_dora` with magnitudes.
adapters::LoraAdapter adapter_of_all_maps(const model::Model& model, bool with_dora) {
  adapters::LoraAdapter adapter{
      .name = "random", .options = {.target_modules = {"all-linear"}}, .base_model = {}, .base_fingerprint = {}, .pairs = {}};
  for (const auto& [path, linear] : model.linears()) {
    RandomStream random(5, path);
    const auto draw = [&](torch::IntArrayRef shape) { return tensor::uniform(shape, 0.3, random).to(torch::kDouble); };
    const auto rank = 2 + static_cast<std::int64_t>(random.below(2));
    const auto a = draw({rank, linear.in_features()}), b = draw({linear.out_features(), rank});
    const auto magnitude = with_dora ? draw({linear.out_features()}) + 2 : torch::Tensor();
    adapter.pairs.emplace(path, adapters::LoraPair(a, b, 3 + static_cast<double>(random.below(3)), false, magnitude));
  }
  return adapter;
}

/// The adapter of a model's separate maps on the maps of its fused form.
adapters::LoraAdapter stacked_adapter(const model::ModelSpec& spec, adapters::LoraAdapter adapter) {
  for (const auto& map : model::fused_maps(spec)) {
    for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
      std::vector<adapters::StackedPart> parts;
      for (const auto& part : map.parts) {
        const auto found = adapter.pairs.find(model::block_path(spec, layer, part.name));
        parts.push_back({found->second, torch::tensor(part.rows(), torch::kLong)});
        adapter.pairs.erase(found);
      }
      adapter.pairs.emplace(model::block_path(spec, layer, map.name), adapters::stacked(parts, map.num_rows()));
    }
  }
  return adapter;
}

class AdapterForm : public ::testing::TestWithParam<std::string> {
 protected:
  static model::Model load(Fusion fusion) {
    return model::load_model(kFamilies / GetParam(), {torch::kCPU, torch::kDouble}, {.fusion = fusion});
  }

  static torch::Tensor logits(const model::Model& model) {
    forest::TokenForest forest;
    forest.add_segment(forest::kNoParent, std::vector<std::int32_t>{3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46});
    return model.head().logits(model::hidden_of_all(model, model::forest_rows(forest)));
  }
  static torch::Tensor logits(const model::Model& model, const adapters::LoraAdapter& adapter) {
    return logits(model.with_linears(adapters::attach(model.linears(), adapter)));
  }
  static double difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }
};

TEST_P(AdapterForm, AllFormsComputeTheSame) {
  const auto stored = load(Fusion::kAsStored);
  const auto expected = logits(stored);
  for (const auto fusion : {Fusion::kSeparate, Fusion::kFused}) {
    SCOPED_TRACE(model::fusion_name(fusion));
    const auto other = load(fusion);
    for (const auto& map : model::fused_maps(other.spec())) EXPECT_EQ(map.is_fused, fusion == Fusion::kFused) << map.name;
    EXPECT_LT(difference(logits(other), expected), 1e-12 * expected.abs().max().item<double>());
    EXPECT_EQ(other.fingerprint(), stored.fingerprint());
    EXPECT_EQ(other.num_parameters(), stored.num_parameters());
  }
}

TEST_P(AdapterForm, AnAdapterOfFusedMapsIsCut) {
  const auto fused = load(Fusion::kFused), separate = load(Fusion::kSeparate);
  for (const bool with_dora : {false, true}) {
    SCOPED_TRACE(with_dora ? "DoRA" : "LoRA");
    const auto adapter = adapter_of_all_maps(fused, with_dora);
    const auto expected = logits(fused, adapter);
    const auto cut = in_form_of(separate.spec(), adapter);
    EXPECT_EQ(cut.pairs.size(), separate.linears().size());
    EXPECT_LT(difference(logits(separate, cut), expected), 1e-11 * expected.abs().max().item<double>());
    EXPECT_GT(difference(logits(fused), expected), 1e-3);
  }
}

TEST_P(AdapterForm, AnAdapterOfSeparateMapsIsStacked) {
  const auto fused = load(Fusion::kFused), separate = load(Fusion::kSeparate);
  for (const bool with_dora : {false, true}) {
    SCOPED_TRACE(with_dora ? "DoRA" : "LoRA");
    const auto adapter = adapter_of_all_maps(separate, with_dora);
    const auto expected = logits(separate, adapter);
    EXPECT_LT(difference(logits(fused, stacked_adapter(separate.spec(), adapter)), expected), 1e-11 * expected.abs().max().item<double>());
  }
}

TEST_P(AdapterForm, TheFormFollowsFromThePaths) {
  const auto stored = load(Fusion::kAsStored);
  const auto& spec = stored.spec();
  const auto& names = spec.names;
  const auto form = [&](const std::vector<const char*>& maps) {
    std::set<std::string> paths;
    for (const auto* name : maps) paths.insert(model::block_path(spec, 1, name));
    return model::fusion_for(spec, paths);
  };
  const bool is_fused = spec.block.attention.rows != model::QkvRows::kSeparate;
  EXPECT_EQ(form({names.output, names.down}), Fusion::kAsStored);
  EXPECT_EQ(form({names.query, names.output}), is_fused ? Fusion::kSeparate : Fusion::kAsStored);
  EXPECT_EQ(form({names.qkv}), is_fused ? Fusion::kAsStored : Fusion::kFused);
  EXPECT_EQ(form({names.qkv, names.value}), Fusion::kSeparate);
  if (spec.block.mlp.is_gated) {
    EXPECT_EQ(form({names.qkv, names.gate}), Fusion::kSeparate);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, AdapterForm, ::testing::ValuesIn(quiver::testing::golden_cases(kFamilies)), quiver::testing::case_name);

TEST(InputSets, ComeFromTheDescription) {
  const auto inputs = [](const char* name) { return model::maps_of_one_input(model::load_spec(kFamilies / name)); };
  using Sets = std::vector<std::vector<std::string>>;
  EXPECT_EQ(inputs("llama"), (Sets{{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"mlp.gate_proj", "mlp.up_proj"}}));
  EXPECT_EQ(inputs("phi"), (Sets{{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"}}));
  EXPECT_EQ(inputs("gpt_neo"), (Sets{{"attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"}}));
  EXPECT_EQ(inputs("phi3"), Sets{});
  EXPECT_EQ(inputs("gpt_neox"), Sets{});
}

/// What a user's adapters and target modules make of a base.
TEST(FusionFor, ReadsAdaptersAndTargets) {
  const auto phi3 = (kFamilies / "phi3").string(), llama = (kFamilies / "llama").string();
  EXPECT_EQ(fusion_for(phi3, {}), Fusion::kAsStored);
  EXPECT_EQ(fusion_for(phi3, {.adapters = {.adapter = phi3 + "/adapter"}}), Fusion::kAsStored);
  EXPECT_EQ(fusion_for(phi3, {.adapters = {.adapter = llama + "/adapter"}}), Fusion::kSeparate);
  EXPECT_EQ(fusion_for(llama, {.adapters = {.adapter = phi3 + "/adapter"}}), Fusion::kFused);
  EXPECT_EQ(fusion_for(llama, {.target_modules = {"qkv_proj"}}), Fusion::kFused);
  EXPECT_EQ(fusion_for(phi3, {.target_modules = {"v_proj", "o_proj"}}), Fusion::kSeparate);
  EXPECT_EQ(fusion_for(phi3, {.target_modules = adapters::LoraOptions().target_modules}), Fusion::kAsStored);
  EXPECT_EQ(fusion_for(phi3, {.target_modules = {"all-linear"}}), Fusion::kAsStored);
}

/// A library of both forms takes the separate one; each alone, its own.
TEST(FusionFor, ALibraryOfBothFormsIsSeparate) {
  const io::TempFolder temp;
  const auto base = (kFamilies / "llama").string();
  const auto fused = model::load_model(base, {torch::kCPU, torch::kFloat}, {.fusion = Fusion::kFused});
  const auto separate = model::load_model(base, {torch::kCPU, torch::kFloat});
  auto library = library::Library::create(temp.path() / "library", {separate.spec().name, separate.fingerprint()});
  for (const auto* model : {&fused, &separate}) {
    auto adapter =
        adapters::initial_adapter(model == &fused ? "fused" : "separate", {.target_modules = {"all-linear"}}, model->linears(), 1);
    adapter.base_model = separate.spec().name;
    library.add(adapter, {.kind = library::AdapterKind::kImported});
  }
  const auto form = [&](std::vector<std::string> names) {
    return fusion_for(base, {.adapters = {.library = library.path().string(), .names = std::move(names)}});
  };
  EXPECT_EQ(form({}), Fusion::kSeparate);
  EXPECT_EQ(form({"fused"}), Fusion::kFused);
  EXPECT_EQ(form({"separate"}), Fusion::kAsStored);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { in_form_of(fused.spec(), library.load("separate")); }),
              HasSubstr("'layers.0.self_attn.q_proj', which the model holds within 'layers.0.self_attn.qkv_proj'"));
}

}  // namespace
}  // namespace quiver::methods
