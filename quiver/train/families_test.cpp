// Every family of tests/golden/families against transformers and PEFT, and its fused passes against the definition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/io/json.h"
#include "quiver/model/families.h"
#include "quiver/model/generate.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/train/test_support.h"

namespace quiver::train {
namespace {

using torch::Tensor;

using quiver::testing::kFamilies;

/// Cases that need more than the default context.
std::optional<std::int64_t> context_of(const std::string& name) {
  return name == "phi3-long" ? std::optional<std::int64_t>(128) : std::nullopt;
}

struct Golden {
  std::vector<std::int32_t> tokens, greedy;
  tensor::TensorMap tensors;
  double adapter_loss = 0;
  double largest() const { return tensors.at("logits").abs().max().item<double>(); }
};

Golden golden_of(const std::string& name) {
  const auto json = io::read_json_file(kFamilies / name / "golden.json");
  return {json.at("tokens").get<std::vector<std::int32_t>>(), json.at("greedy").get<std::vector<std::int32_t>>(),
          tensor::load_tensors(kFamilies / name / "golden.safetensors"), json.value("adapter_loss", 0.0)};
}

forest::TokenForest forest_of(const std::vector<std::int32_t>& tokens) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, tokens);
  return forest;
}

Tensor reference_logits(const model::Model& model, const forest::TokenForest& forest) {
  return testing::reference_logits(model, testing::reference_hidden(model, forest));
}

Tensor fused_logits(const model::Model& model, const forest::TokenForest& forest) {
  const torch::NoGradGuard no_grad;
  return model.head().logits(model::hidden_of_all(model, model::forest_rows(forest))).to(torch::kDouble);
}

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

class Families : public ::testing::TestWithParam<std::string> {
 protected:
  model::Model load(torch::Dtype dtype) const {
    return model::load_model(kFamilies / GetParam(), {torch::kCPU, dtype}, {.context = context_of(GetParam())});
  }
  const Golden golden_ = golden_of(GetParam());
};

TEST_P(Families, BothSpellingsOfTheConfigurationMeanTheSame) {
  const auto spec = [&](const char* file) {
    return model::essence(model::spec_from_json(io::read_json_file(kFamilies / GetParam() / file), file));
  };
  EXPECT_EQ(spec("config.json"), spec("saved.json"));
}

TEST_P(Families, TheDefinitionIsThatOfTransformers) {
  const auto model = load(torch::kDouble);
  EXPECT_LT(difference(reference_logits(model, forest_of(golden_.tokens)), golden_.tensors.at("logits")), 1e-5 * golden_.largest());
}

TEST_P(Families, ThePassesComputeTheDefinition) {
  const auto forest = forest_of(golden_.tokens);
  const auto exact = load(torch::kDouble);
  const auto expected = reference_logits(exact, forest);
  EXPECT_LT(difference(fused_logits(exact, forest), expected), 1e-11 * golden_.largest());
  EXPECT_LT(difference(fused_logits(load(torch::kFloat), forest), golden_.tensors.at("logits")), 2e-5 * golden_.largest());
  const auto rounded = fused_logits(load(torch::kBFloat16), forest);
  EXPECT_LT(((rounded - expected).norm() / expected.norm()).item<double>(), 5e-2);
}

TEST_P(Families, ContinuesAsTransformersDoes) {
  const auto model = load(torch::kFloat);
  const std::vector<std::vector<std::int32_t>> prompts = {golden_.tokens};
  EXPECT_EQ(model::generate(model, prompts, {.max_new_tokens = static_cast<std::int64_t>(golden_.greedy.size())})[0], golden_.greedy);
}

TEST_P(Families, AForestIsItsPathsOneByOne) {
  const auto model = load(torch::kDouble);
  const std::vector<std::int32_t> trunk(golden_.tokens.begin(), golden_.tokens.begin() + 9);
  const std::vector<std::vector<std::int32_t>> branches = {{5, 6, 7, 8, 9, 10, 11}, {6}, {7, 7, 7}};
  forest::TokenForest forest;
  const auto root = forest.add_segment(forest::kNoParent, trunk);
  std::vector<std::int64_t> segments;
  for (const auto& branch : branches) segments.push_back(forest.add_segment(root, branch));
  segments.push_back(forest.add_segment(segments[0], std::vector<std::int32_t>{3, 4}));
  const auto together = fused_logits(model, forest);
  EXPECT_LT(difference(together, reference_logits(model, forest)), 1e-11 * golden_.largest());
  for (std::size_t i = 0; i < segments.size(); ++i) {
    auto path = trunk;
    const auto& above = branches[i < branches.size() ? i : 0];
    path.insert(path.end(), above.begin(), above.end());
    if (i == branches.size()) path.insert(path.end(), {3, 4});
    const auto& segment = forest.segments()[static_cast<std::size_t>(segments[i])];
    const auto alone = fused_logits(model, forest_of(path));
    EXPECT_LT(difference(together.narrow(0, segment.first_row, segment.length),
                         alone.narrow(0, std::ssize(path) - segment.length, segment.length)),
              1e-11 * golden_.largest())
        << "segment " << i;
  }
}

/// One case for each spelling of the module names has an adapter of PEFT.
class FamiliesWithAdapter : public Families {};

TEST_P(FamiliesWithAdapter, GradientsOfAdaptersAreThoseOfPeft) {
  const auto adapter = adapters::load_peft(kFamilies / GetParam() / "adapter");
  const auto forest = forest_of(golden_.tokens);
  model::LossTargets targets;
  for (std::int64_t row = 0; row + 1 < forest.num_rows(); ++row) targets.rows.push_back(row);
  targets.tokens = torch::tensor(std::vector<std::int64_t>(golden_.tokens.begin() + 1, golden_.tokens.end()));
  targets.weights = torch::ones({targets.tokens.size(0)}, torch::kDouble);
  for (const auto dtype : {torch::kDouble, torch::kFloat}) {
    for (const bool checkpoints : {false, true}) {
      SCOPED_TRACE(format("{} {}", c10::toString(dtype), checkpoints));
      const auto base = load(dtype);
      OneAdapter trained(adapter, torch::kCPU, dtype);
      const auto updates = trained.attach(base.linears());
      const model::TrainedModel attached(base, updates);
      const double loss = model::add_loss_gradient(attached, model::forest_rows(forest), targets, {.checkpoint_activations = checkpoints});
      EXPECT_NEAR(loss, golden_.adapter_loss, 2e-5 * golden_.adapter_loss);
      double largest = 0;
      for (const auto& [key, value] : golden_.tensors) {
        if (key.starts_with("gradient.")) largest = std::max(largest, value.abs().max().item<double>());
      }
      for (const auto& [path, pair] : adapter.pairs) {
        const auto& sums = trained.sink(path).sums;
        const auto prefix = "gradient.base_model.model." + std::string(base.spec().names.prefix) + path;
        EXPECT_LT(difference(sums.at(0), golden_.tensors.at(prefix + ".lora_A.weight")), 5e-5 * largest) << path;
        EXPECT_LT(difference(sums.at(1), golden_.tensors.at(prefix + ".lora_B.weight")), 5e-5 * largest) << path;
      }
    }
  }
}

/// Changes of a description by one knob each.
std::map<std::string, model::ModelSpec> changed_specs(const model::ModelSpec& spec) {
  std::map<std::string, model::ModelSpec> changed;
  const auto with = [&](const std::string& what, const auto& change) {
    auto one = spec;
    change(one);
    if (model::essence(one) != model::essence(spec)) changed.emplace(what, one);
  };
  using backend::Activation;
  with("epsilon", [](auto& s) { s.block.norm.epsilon *= 1000; });
  with("scale", [](auto& s) { s.block.attention.scale = 1.1 * s.block.attention.score_scale(); });
  with("cap", [](auto& s) { s.block.attention.cap = 0; });
  with("window", [](auto& s) {
    for (auto& layer : s.layers) layer.window += layer.window > 0 ? 1 : 0;
  });
  with("frequencies", [](auto& s) {
    for (auto& rope : s.ropes) rope.theta *= 1.1;
  });
  with("rope factor", [](auto& s) {
    for (auto& rope : s.ropes) rope.attention_factor = 1;
  });
  with("rope of layers", [](auto& s) {
    for (auto& layer : s.layers) layer.rope = s.ropes.empty() ? model::kNoRope : 0;
  });
  with("embedding scale", [](auto& s) { s.edges.embedding_scale = 1; });
  with("residual scale", [](auto& s) { s.block.residual_scale = 1; });
  with("logit divisor", [](auto& s) { s.edges.logit_divisor = 1; });
  with("logit cap", [](auto& s) { s.edges.logit_cap = 0; });
  with("norm offset", [](auto& s) { s.block.norm.offset = 0; });
  with("activation", [](auto& s) {
    s.block.mlp.activation = s.block.mlp.activation == Activation::kGelu       ? Activation::kGeluTanh
                             : s.block.mlp.activation == Activation::kGeluTanh ? Activation::kGelu
                                                                               : Activation::kGeluTanh;
  });
  with("topology", [](auto& s) {
    if (s.block.topology == model::Topology::kParallel) s.block.topology = model::Topology::kSequential;
  });
  return changed;
}

TEST_P(Families, EveryKnobIsFelt) {
  const auto base = load(torch::kDouble);
  const auto forest = forest_of(golden_.tokens);
  const auto expected = reference_logits(base, forest);
  tensor::TensorMap weights;
  const std::string prefix = base.spec().names.prefix;
  for (const auto& [name, weight] : base.weights()) weights.emplace(name.starts_with(prefix) ? name.substr(prefix.size()) : name, weight);
  for (const auto& [what, spec] : changed_specs(base.spec())) {
    const model::Model changed(spec, weights, base.placement(), {"changed", model::weights_hash(weights)});
    EXPECT_GT(difference(reference_logits(changed, forest), expected), 4e-5 * golden_.largest()) << what;
  }
}

/// transformers 4.52 and later name the text of a model of text and images otherwise in memory, and some files follow.
TEST(Gemma3, ReadsBothNamesOfTheText) {
  const auto source = kFamilies / "gemma3", folder = fs::path(::testing::TempDir()) / "quiver-gemma3";
  fs::create_directories(folder);
  fs::copy_file(source / "config.json", folder / "config.json", fs::copy_options::overwrite_existing);
  tensor::TensorMap renamed;
  constexpr std::string_view kText = "language_model.model.";
  for (const auto& [name, value] : tensor::load_tensors(source / "model.safetensors")) {
    renamed.emplace("model." + (name.starts_with(kText) ? "language_model." + name.substr(kText.size()) : name), value);
  }
  tensor::save_tensors(folder / "model.safetensors", renamed);
  const auto golden = golden_of("gemma3");
  const auto forest = forest_of(golden.tokens);
  const auto load = [](const fs::path& path) { return model::load_model(path, {torch::kCPU, torch::kDouble}); };
  EXPECT_TRUE(fused_logits(load(folder), forest).equal(fused_logits(load(source), forest)));
  fs::remove(folder / "config.json");
  fs::remove(folder / "model.safetensors");
  fs::remove(folder);
}

INSTANTIATE_TEST_SUITE_P(Golden, Families, ::testing::ValuesIn(quiver::testing::golden_cases(kFamilies)), quiver::testing::case_name);
INSTANTIATE_TEST_SUITE_P(Golden, FamiliesWithAdapter, ::testing::ValuesIn(quiver::testing::golden_cases(kFamilies, "adapter")),
                         quiver::testing::case_name);

}  // namespace
}  // namespace quiver::train
