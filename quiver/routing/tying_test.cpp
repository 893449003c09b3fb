#include "quiver/routing/tying.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/rows.h"
#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::HasSubstr;

constexpr std::int64_t kIn = 12;
const InputSets kInputs = {{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"mlp.gate_proj", "mlp.up_proj"}};
const std::map<std::string, std::int64_t> kOutputs = {{"self_attn.q_proj", 12}, {"self_attn.k_proj", 4}, {"self_attn.v_proj", 4},
                                                      {"self_attn.o_proj", 12}, {"mlp.gate_proj", 20},   {"mlp.up_proj", 20}};

/// Of two layers, ranks that differ between projections.
adapters::LoraAdapter layered_adapter(const std::string& name, std::uint64_t seed) {
  adapters::LoraAdapter adapter;
  adapter.name = name;
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    std::int64_t rank = 2;
    for (const auto& [module, outputs] : kOutputs) {
      ++seed;
      adapter.pairs.emplace(layer + module, adapters::LoraPair(draw({rank, kIn}, seed), draw({outputs, rank}, seed + 100), 3));
      rank = rank == 2 ? 3 : 2;
    }
  }
  return adapter;
}

std::vector<adapters::LoraAdapter> two_adapters() { return {layered_adapter("a", 1000), layered_adapter("b", 2000)}; }

/// The first right singular vector of a dense matrix, its largest entry positive.
torch::Tensor first_direction(const torch::Tensor& update) {
  const auto v = std::get<2>(torch::linalg_svd(update.to(torch::kDouble), false))[0];
  return v * v[v.abs().argmax()].sign();
}

torch::Tensor delta(const adapters::LoraAdapter& adapter, const std::string& path) {
  return adapter.pairs.at(path).delta().to(torch::kDouble);
}

TEST(TiePrototypes, ConcatIsTheDirectionOfTheUpdatesOneAboveAnother) {
  const auto adapters = two_adapters();
  const auto own = prototypes(adapters);
  const auto tied = tie_prototypes(adapters, own, kInputs, {"v_proj", "q_proj", "k_proj"}, TieBy::kConcat);
  for (const std::string block : {"layers.0.self_attn.", "layers.1.self_attn."}) {
    SCOPED_TRACE(block);
    for (std::int64_t n = 0; n < 2; ++n) {
      const auto& adapter = adapters[static_cast<std::size_t>(n)];
      const auto expected = first_direction(
          torch::cat({delta(adapter, block + "q_proj"), delta(adapter, block + "k_proj"), delta(adapter, block + "v_proj")}));
      for (const std::string name : {"q_proj", "k_proj", "v_proj"}) {
        EXPECT_LT((tied.at(block + name)[n] - expected).abs().max().item<double>(), 1e-6) << block << name;
      }
    }
    EXPECT_TRUE(tied.at(block + "o_proj").equal(own.at(block + "o_proj")));
    EXPECT_FALSE(tied.at(block + "q_proj").equal(own.at(block + "q_proj")));
  }
  EXPECT_TRUE(tied.at("layers.1.mlp.up_proj").equal(own.at("layers.1.mlp.up_proj")));
}

TEST(TiePrototypes, SumIsTheDirectionOfTheSum) {
  const auto adapters = two_adapters();
  const auto tied = tie_prototypes(adapters, prototypes(adapters), kInputs, {"k_proj", "v_proj", "gate_proj", "up_proj"}, TieBy::kSum);
  const auto kv = first_direction(delta(adapters[1], "layers.1.self_attn.k_proj") + delta(adapters[1], "layers.1.self_attn.v_proj"));
  EXPECT_LT((tied.at("layers.1.self_attn.k_proj")[1] - kv).abs().max().item<double>(), 1e-6);
  const auto mlp = first_direction(delta(adapters[0], "layers.0.mlp.gate_proj") + delta(adapters[0], "layers.0.mlp.up_proj"));
  EXPECT_LT((tied.at("layers.0.mlp.up_proj")[0] - mlp).abs().max().item<double>(), 1e-6);
}

TEST(TiePrototypes, OfOneLoraAIsThatOfTheFusedProjection) {
  const adapters::LoraPair fused(draw({2, kIn}, 1), draw({20, 2}, 2), 4);
  adapters::LoraAdapter separate;
  separate.pairs.emplace("layers.0.self_attn.q_proj", adapters::of_rows(fused, torch::arange(12)));
  separate.pairs.emplace("layers.0.self_attn.k_proj", adapters::of_rows(fused, torch::arange(12, 16)));
  separate.pairs.emplace("layers.0.self_attn.v_proj", adapters::of_rows(fused, torch::arange(16, 20)));
  const auto of_fused = arrow_prototype(fused);
  const std::vector<adapters::LoraAdapter> adapters = {separate};
  const auto tied = tie_prototypes(adapters, prototypes(adapters), kInputs, {"q_proj", "k_proj", "v_proj"}, TieBy::kConcat);
  EXPECT_LT((tied.at("layers.0.self_attn.v_proj")[0] - of_fused).abs().max().item<double>(), 1e-6);
}

TEST(TiePrototypes, MapsOfOneInputMayStandApartInABlock) {  // Phi's fc1 reads what q, k and v read
  adapters::LoraAdapter adapter;
  for (const char* path : {"layers.0.self_attn.q_proj", "layers.0.mlp.fc1", "layers.1.self_attn.q_proj", "layers.1.mlp.fc1"}) {
    adapter.pairs.emplace(path, adapters::LoraPair(draw({2, kIn}, adapter.pairs.size() + 1), draw({8, 2}, adapter.pairs.size() + 9), 4));
  }
  const std::vector<adapters::LoraAdapter> adapters = {adapter};
  const auto tied = tie_prototypes(adapters, prototypes(adapters), {{"self_attn.q_proj", "self_attn.k_proj", "mlp.fc1"}}, {"q_proj", "fc1"},
                                   TieBy::kConcat);
  const auto expected = first_direction(torch::cat({delta(adapter, "layers.1.self_attn.q_proj"), delta(adapter, "layers.1.mlp.fc1")}));
  EXPECT_LT((tied.at("layers.1.mlp.fc1")[0] - expected).abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(tied.at("layers.1.self_attn.q_proj").equal(tied.at("layers.1.mlp.fc1")));
  EXPECT_FALSE(tied.at("layers.0.mlp.fc1").equal(tied.at("layers.1.mlp.fc1")));
}

TEST(TiePrototypes, RefusesWhatDoesNotReadOneInput) {
  const auto adapters = two_adapters();
  const auto own = prototypes(adapters);
  const auto refusal = [&](const std::vector<std::string>& names, TieBy by, ErrorKind kind = ErrorKind::kUsage) {
    return message_of(kind, [&] { tie_prototypes(adapters, own, kInputs, names, by); });
  };
  EXPECT_THAT(refusal({"q_proj", "o_proj"}, TieBy::kConcat), HasSubstr("'o_proj' cannot be tied"));
  EXPECT_THAT(refusal({"q_proj", "gate_proj"}, TieBy::kConcat), HasSubstr("is tied to nothing"));
  EXPECT_THAT(refusal({"q_proj", "q_proj"}, TieBy::kConcat), HasSubstr("'layers.0.self_attn.q_proj' is tied to nothing"));
  EXPECT_THAT(refusal({"q_proj", "k_proj"}, TieBy::kSum, ErrorKind::kMismatch), HasSubstr("have 4 and 12 outputs"));
  auto without = adapters;
  for (auto& adapter : without) std::erase_if(adapter.pairs, [](const auto& item) { return item.first.ends_with("up_proj"); });
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           tie_prototypes(without, own, kInputs, {"gate_proj", "up_proj"}, TieBy::kConcat);
                         }),
              HasSubstr("adapter 'a' does not adapt it"));
}

}  // namespace
}  // namespace quiver::routing
