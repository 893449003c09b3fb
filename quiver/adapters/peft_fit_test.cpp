// Whether an adapter belongs to a model, and what of its configuration has no effect there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <memory>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/test_support.h"

namespace quiver::adapters {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BaseNames, OfAnyLengthAreCompared) {
  std::string long_name;
  for (int i = 0; i < 1300; ++i) long_name += "-q1";
  EXPECT_FALSE(base_names_differ("llama", "llama" + long_name));
  EXPECT_TRUE(base_names_differ("llama", "llama" + long_name + "-x"));
}

TEST(BaseNames, DifferOnlyIfTheModelsDo) {
  EXPECT_FALSE(base_names_differ("Qwen/Qwen2.5-0.5B", "/models/qwen2.5-0.5b/"));
  EXPECT_FALSE(base_names_differ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct-q8_0.gguf"));
  EXPECT_FALSE(base_names_differ("Llama-3.2-1B", "Llama-3.2-1B.Q4_K_M.gguf"));
  EXPECT_FALSE(base_names_differ("Qwen/Qwen2.5-0.5B", "/cache/models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32faf8"));
  for (const char* copy : {"unsloth/Llama-3.2-1B-bnb-4bit", "unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "Llama-3.2-1B-GGUF",
                           "Llama-3.2-1B-GPTQ", "Llama-3.2-1B-GPTQ-Int4", "Llama-3.2-1B-AWQ", "Llama-3.2-1B-FP8"}) {
    EXPECT_FALSE(base_names_differ("meta-llama/Llama-3.2-1B", copy)) << copy;
  }
  EXPECT_FALSE(base_names_differ("", "llama"));
  EXPECT_FALSE(base_names_differ("./", "llama"));
  EXPECT_TRUE(base_names_differ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct"));
  EXPECT_TRUE(base_names_differ("llama-1b", "llama-3b"));
}

nn::LinearMap model_of(const LoraAdapter& adapter) {
  nn::LinearMap projections;
  for (const auto& [path, pair] : adapter.pairs) {
    projections[path] = nn::Linear(torch::zeros({pair.out_features(), pair.in_features()}));
  }
  return projections;
}

TEST(CheckFits, AcceptsAnAdapterOfTheModel) {
  auto adapter = random_adapter("a");
  EXPECT_EQ(check_fits(adapter, model_of(adapter), "llama-tiny", ""), std::nullopt);
  adapter.base_fingerprint = "f";
  EXPECT_EQ(check_fits(adapter, model_of(adapter), "renamed", "f"), std::nullopt);
}

/// An adapter with a configuration, changed, and the warnings that it gives on its own model.
std::vector<std::string> warnings_of(const nlohmann::json& changes, const std::string& without = "") {
  const TempFolder temp;
  auto adapter = load_peft(with_config(temp, random_adapter("a"), changes));
  const auto model = model_of(adapter);
  std::erase_if(adapter.pairs, [&](const auto& entry) { return !without.empty() && entry.first.starts_with(without); });
  return peft_warnings(adapter, model);
}

TEST(PeftWarnings, NameKeysThatMatchNothing) {
  EXPECT_THAT(warnings_of({{"rank_pattern", {{"gate_proj", 8}, {"q_proj", 2}, {"q", 3}}}}),
              ElementsAre("warning: adapter 'edited' has 2 keys in rank_pattern that match none of its target modules, and do nothing: "
                          "'gate_proj', 'q'"));
  EXPECT_THAT(warnings_of({{"alpha_pattern", {{"model.layers.2.*", 8}}}}), ElementsAre(HasSubstr("1 keys in alpha_pattern")));
}

TEST(PeftWarnings, NameProjectionsWithoutTensors) {
  EXPECT_THAT(warnings_of(nlohmann::json::object(), "layers.1."),
              ElementsAre("warning: adapter 'edited' has no tensors for 2 of the 4 projections that its configuration targets: "
                          "'layers.1.self_attn.q_proj', 'layers.1.self_attn.v_proj'"));
  EXPECT_THAT(warnings_of({{"layers_to_transform", {0, 1}}}, "layers.1."), ElementsAre(HasSubstr("no tensors for 2 of the 4")));
  EXPECT_THAT(warnings_of({{"target_modules", "all-linear"}}, "layers.1."), ElementsAre(HasSubstr("no tensors for 2 of the 4")));
}

TEST(PeftWarnings, NameUnknownKeys) {
  EXPECT_THAT(warnings_of({{"use_new_method", true}, {"new_size", 3}, {"new_list", nlohmann::json::array()}}),
              ElementsAre("warning: adapter 'edited' has unknown keys in its configuration, which are left out: "
                          "'new_size=3', 'use_new_method=true'"));
}

TEST(PeftWarnings, SayNothingWherePeftSaysNothing) {
  EXPECT_THAT(warnings_of({{"target_modules", {"q_proj", "v_proj", "c_attn"}}}), ElementsAre());
  EXPECT_THAT(warnings_of({{"layers_to_transform", {0, 1, 7}}}), ElementsAre());
  EXPECT_THAT(warnings_of({{"exclude_modules", {"lm_head"}}}), ElementsAre());
  EXPECT_THAT(peft_warnings(random_adapter("made here"), {}), ElementsAre());
}

TEST(PeftWarnings, NameExclusionsOfNothing) {
  EXPECT_THAT(warnings_of({{"exclude_modules", {"c_attn"}}}),
              ElementsAre("warning: adapter 'edited' has exclude_modules that match no module"));
}

TEST(CheckFits, NamesPairsWithoutProjection) {
  auto adapter = random_adapter("a");
  const auto model = model_of(adapter);
  adapter.pairs.emplace("layers.2.self_attn.q_proj", adapter.pairs.at("layers.1.self_attn.q_proj"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { check_fits(adapter, model, "llama-tiny", "", true); }),
              HasSubstr("no projection 'layers.2.self_attn.q_proj' (did you mean 'layers.0.self_attn.q_proj'?)"));
}

TEST(CheckFits, TellsBothShapes) {
  const auto adapter = random_adapter("a");
  auto model = model_of(adapter);
  model["layers.0.self_attn.v_proj"] = nn::Linear(torch::zeros({5, 6}));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { check_fits(adapter, model, "llama-tiny", "", true); }),
              HasSubstr("it maps 6 to 4 features, the model maps 6 to 5"));
}

TEST(CheckFits, RefusesAnotherBaseUnlessAllowed) {
  auto adapter = random_adapter("a");
  const auto model = model_of(adapter);
  EXPECT_EQ(check_fits(adapter, model, "llama-huge", "g"),
            "warning: adapter 'a' names base 'llama-tiny', the model is called 'llama-huge'; its shapes fit");
  EXPECT_EQ(check_fits(adapter, model, "llama-huge", "g", /*allow_other_base=*/true), std::nullopt);
  adapter.base_fingerprint = "f";
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { check_fits(adapter, model, "llama-tiny", "g"); }),
              HasSubstr("fingerprint f, the model is 'llama-tiny' with fingerprint g"));
  EXPECT_NO_THROW(check_fits(adapter, model, "llama-tiny", "g", /*allow_other_base=*/true));
}

}  // namespace
}  // namespace quiver::adapters
