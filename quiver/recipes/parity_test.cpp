// Whole models with adapters against PEFT and plain references in Python.
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quiver/adapters/lora_update.h"
#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/merge/mean.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/model/decoder.h"
#include "quiver/model/model.h"
#include "quiver/routing/attach.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

model::Model tiny() { return model::load_model("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat}); }

torch::Tensor logits_of(const model::Model& model, const std::vector<std::int32_t>& ids) {
  const torch::InferenceMode inference;
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, ids);
  return model.head().logits(model::hidden_of_all(model, model::forest_rows(forest)));
}

TEST(PeftAdapters, GiveTheLogitsOfPeft) {
  const fs::path folder = "tests/golden/peft";
  const auto cases = io::read_json_file(folder / "cases.json");
  const auto ids = cases.at("ids").get<std::vector<std::int32_t>>();
  const auto positions = torch::tensor(cases.at("positions").get<std::vector<std::int64_t>>());
  const auto golden = tensor::load_tensors(folder / "logits.safetensors");
  const auto base = tiny();
  for (const auto& name : cases.at("supported").get<std::vector<std::string>>()) {
    const auto adapter = adapters::load_peft(folder / name);
    adapters::check_fits(adapter, base.linears(), base.spec().name, base.fingerprint(), /*allow_other_base=*/true,
                         methods::outer_sizes(base));
    const auto logits = logits_of(methods::with_adapter(base, adapter), ids).index_select(0, positions);
    const auto found = golden.contains(name) ? golden.find(name) : golden.find(name + ".logits");
    ASSERT_NE(found, golden.end()) << name;
    // PEFT computes adapters stored in bfloat16 in float32, as we do.
    EXPECT_LT((logits - found->second).abs().max().item<double>(), 2e-4) << name;
  }
  const std::map<std::string, const char*> refused = {{"tied-embedding", "ensure_weight_tying is true"},
                                                      {"dora-embedding", "'model.embed_tokens' is an embedding with a DoRA"}};
  for (const auto& name : cases.at("refused").get<std::vector<std::string>>()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(refused.contains(name));
    EXPECT_ERROR(adapters::load_peft(folder / name), ErrorKind::kUnsupported, refused.at(name));
  }
}

/// What PEFT calls the kind of a warning of ours.
std::string kind_of(const std::string& warning) {
  for (const char* kind : {"rank_pattern", "alpha_pattern", "exclude_modules"}) {
    if (warning.find(kind) != std::string::npos) return kind;
  }
  return warning.find("has no tensors for") != std::string::npos ? "missing" : warning;
}

TEST(PeftAdapters, GiveTheWarningsOfPeft) {
  const fs::path folder = "tests/golden/peft";
  const auto base = tiny();
  for (const auto& row : io::read_json_file(folder / "warnings.json")) {
    auto adapter = adapters::load_peft(folder / "plain");
    auto config = io::parse_json(adapter.peft_config, "plain");
    config.update(row.at("changes"));
    adapter.peft_config = config.dump();
    for (const auto& layer : row.at("without_layers")) {
      std::erase_if(adapter.pairs, [&](const auto& entry) { return entry.first.starts_with(format("layers.{}.", layer.dump())); });
    }
    std::vector<std::string> kinds;
    for (const auto& warning : adapters::peft_warnings(adapter, base.linears())) kinds.push_back(kind_of(warning));
    std::ranges::sort(kinds);
    EXPECT_EQ(kinds, row.at("warnings").get<std::vector<std::string>>()) << row;
  }
}

TEST(Arrow, GivesTheLogitsOfPeftAndOfThePapersRule) {
  const fs::path folder = "tests/golden/arrow";
  const auto golden = tensor::load_tensors(folder / "whole_model.safetensors");
  const auto file = io::read_json_file(folder / "cases.json");
  const auto ids = file.at("ids").get<std::vector<std::int32_t>>();
  const auto base = tiny();
  int compared = 0;
  for (const auto& [name, entry] : file.at("cases").items()) {
    std::vector<adapters::LoraAdapter> adapters;
    for (const auto& adapter : entry.at("adapters")) adapters.push_back(adapters::load_peft(folder / adapter.get<std::string>()));
    const routing::ArrowOptions options{.top_k = entry.at("top_k"), .temperature = entry.at("temperature")};
    for (const auto& [suffix, combine] :
         {std::pair(".outputs", routing::Combine::kOutputs), std::pair(".parameters", routing::Combine::kParams)}) {
      const auto found = golden.find(name + suffix + ".logits");
      if (found == golden.end()) continue;
      auto projections = base.linears();
      routing::attach_routed(projections, adapters, options, combine);
      const auto logits = logits_of(base.with_linears(projections), ids);
      EXPECT_LT((logits - found->second).abs().max().item<double>(), 2e-4) << name << suffix;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 13);
}

TEST(Mean, GivesTheLogitsOfTheReference) {
  const fs::path folder = "tests/golden/arrow";
  std::vector<adapters::LoraAdapter> adapters;
  for (int i = 0; i < 6; ++i) adapters.push_back(adapters::load_peft(folder / ("adapter-" + std::to_string(i))));
  const auto base = tiny();
  const auto file = io::read_json_file(folder / "cases.json");
  const auto mean = base.with_linears(adapters::attach(base.linears(), merge::mean_of_factors(adapters)));
  const auto logits = logits_of(mean, file.at("ids").get<std::vector<std::int32_t>>());
  EXPECT_LT((logits - tensor::load_tensors(folder / "whole_model.safetensors").at("mean.logits")).abs().max().item<double>(), 2e-4);
}

}  // namespace
}  // namespace quiver::recipes
