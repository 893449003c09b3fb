// Biases of lora_b: their gradients are those of PEFT, and of the definition.
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>

#include "quiver/adapters/peft.h"
#include "quiver/io/json.h"
#include "quiver/train/test_support.h"

namespace quiver::train {
namespace {

TEST(LoraBias, GradientsAreThoseOfPeft) {
  const auto folder = kGolden / "peft";
  const auto ids = io::read_json_file(folder / "cases.json").at("ids").get<std::vector<std::int32_t>>();
  const auto golden = tensor::load_tensors(folder / "gradients.safetensors");
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, ids);
  model::LossTargets targets;
  for (std::int64_t row = 0; row + 1 < forest.num_rows(); ++row) targets.rows.push_back(row);
  targets.tokens = torch::tensor(std::vector<std::int64_t>(ids.begin() + 1, ids.end()));
  targets.weights = torch::ones({targets.tokens.size(0)}, torch::kDouble);

  const auto base = tiny(torch::kDouble);
  OneAdapter trained(adapters::load_peft(folder / "lora-bias"), torch::kCPU, torch::kDouble);
  const model::TrainedModel attached(base, trained.attach(base.linears()));
  const double loss = model::add_loss_gradient(attached, model::forest_rows(forest), targets, {});
  const auto reference = reference_gradient(base, trained, forest, targets);
  EXPECT_NEAR(loss, reference.loss, 1e-9 * loss);
  EXPECT_LT((trained.gradient() - reference.gradient).abs().max().item<double>(), 1e-9 * reference.gradient.abs().max().item<double>());
  const double largest = reference.gradient.abs().max().item<double>();
  EXPECT_EQ(golden.size(), 3 * trained.live().pairs.size());
  for (const auto& [path, pair] : trained.live().pairs) {
    const auto& sums = trained.sink(path).sums;
    const char* names[] = {".lora_A.weight", ".lora_B.weight", ".lora_B.bias"};
    for (std::size_t i = 0; i < 3; ++i) {
      const auto& expected = golden.at("base_model.model.model." + path + names[i]);
      EXPECT_LT((sums.at(i) - expected).abs().max().item<double>(), 5e-5 * largest) << path << names[i];
    }
  }
}

}  // namespace
}  // namespace quiver::train
