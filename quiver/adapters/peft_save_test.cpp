// What save_peft writes, and what it leaves alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <fstream>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/test_support.h"
#include "quiver/io/file.h"

namespace quiver::adapters {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// The three files of a folder, one after another.
std::string bytes_of(const fs::path& folder) {
  return io::read_text_file(folder / kPeftConfigFile) + io::read_text_file(folder / kPeftTensorsFile) +
         io::read_text_file(folder / "README.md");
}

TEST(SavePeft, SaysFanInFanOutOfGpt2Alone) {
  const TempFolder temp;
  const auto saved = [&](const std::string& path) {
    LoraAdapter adapter{.name = "a", .options = {.target_modules = {"all-linear"}}, .base_model = {}, .base_fingerprint = {}, .pairs = {}};
    adapter.pairs.emplace(path, LoraPair(torch::rand({2, 6}), torch::rand({8, 2}), 4));
    save_peft(temp.path() / "a", adapter, /*force=*/true);
    return config_of(temp.path() / "a").at("fan_in_fan_out").get<bool>();
  };
  EXPECT_TRUE(saved("transformer.h.0.attn.c_attn"));
  EXPECT_FALSE(saved("transformer.h.0.attn.attention.q_proj"));
  EXPECT_FALSE(saved("layers.0.self_attn.q_proj"));
}

TEST(SavePeft, ReplacesNoFolderThatHoldsOtherThings) {
  const TempFolder temp;
  const auto folder = temp.path() / "a";
  save_peft(folder, random_adapter("a"));
  io::write_file_atomic(folder / "notes.txt", std::string_view("mine"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { save_peft(folder, random_adapter("a"), /*force=*/true); }),
              HasSubstr("holds 'notes.txt'"));
  EXPECT_EQ(io::read_text_file(folder / "notes.txt"), "mine");
}

TEST(SavePeft, RoundTripsToTheByte) {
  const TempFolder temp;
  auto adapter = random_adapter("qnli");
  adapter.base_fingerprint = "0123abcd";
  adapter.options.dropout = 0.05;
  save_peft(temp.path() / "first", adapter);
  const auto read = load_peft(temp.path() / "first");
  EXPECT_TRUE(same_pairs(read, adapter));
  EXPECT_EQ(read.base_fingerprint, "0123abcd");
  EXPECT_EQ(read.base_model, "llama-tiny");
  EXPECT_DOUBLE_EQ(read.options.dropout, 0.05);
  EXPECT_EQ(read.options.target_modules, adapter.options.target_modules);
  save_peft(temp.path() / "second", read);
  EXPECT_EQ(bytes_of(temp.path() / "first"), bytes_of(temp.path() / "second"));
}

TEST(SavePeft, TellsPairsOfDifferentRanksAndAlphas) {
  const TempFolder temp;
  auto adapter = random_adapter("mixed");
  adapter.pairs.at("layers.1.self_attn.q_proj") = LoraPair(torch::ones({3, 6}), torch::ones({8, 3}), 0.1);
  adapter.pairs.at("layers.0.self_attn.v_proj") = LoraPair(torch::ones({5, 6}), torch::ones({4, 5}), 4);
  save_peft(temp.path() / "a", adapter);
  EXPECT_TRUE(same_pairs(load_peft(temp.path() / "a"), adapter));
  const auto config = config_of(temp.path() / "a");
  EXPECT_EQ(config["rank_pattern"].dump(), R"({"model.layers.0.self_attn.v_proj":5,"model.layers.1.self_attn.q_proj":3})");
  EXPECT_EQ(config["alpha_pattern"].dump(), R"({"model.layers.1.self_attn.q_proj":0.1})");
}

TEST(SavePeft, KeepsTheScalingOfRankStabilisedPairsBesidePlainOnes) {
  const TempFolder temp;
  auto adapter = random_adapter("mixed");
  const LoraPair stable(torch::ones({4, 6}), torch::ones({8, 4}), 6, /*use_rslora=*/true);
  adapter.pairs.at("layers.1.self_attn.q_proj") = stable;
  save_peft(temp.path() / "a", adapter);
  const auto read = load_peft(temp.path() / "a");
  EXPECT_FALSE(read.options.use_rslora);
  EXPECT_DOUBLE_EQ(read.pairs.at("layers.1.self_attn.q_proj").scaling(), stable.scaling());
}

TEST(SavePeft, ToldPatternsAndTargetsGiveWayToThePairs) {
  const TempFolder temp;
  auto adapter = load_peft("tests/golden/peft/patterns");
  for (auto& [path, pair] : adapter.pairs) pair = LoraPair(pair.lora_a(), pair.lora_b(), 7);
  adapter.pairs.emplace("layers.0.mlp.up_proj", LoraPair(torch::ones({4, 6}), torch::ones({8, 4}), 7));
  save_peft(temp.path() / "a", adapter);
  EXPECT_TRUE(same_pairs(load_peft(temp.path() / "a"), adapter));
  EXPECT_EQ(config_of(temp.path() / "a")["peft_version"], "0.21.2");
}

TEST(SavePeft, OverwritesOnlyAdaptersAndOnlyByForce) {
  const TempFolder temp;
  const auto folder = temp.path() / "a";
  save_peft(folder, random_adapter("a"));
  const auto other = random_adapter("a", 3, 6);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { save_peft(folder, other); }), HasSubstr("exists already"));
  EXPECT_EQ(load_peft(folder).options.rank, 2);
  save_peft(folder, other, /*force=*/true);
  EXPECT_EQ(load_peft(folder).options.rank, 3);

  fs::create_directory(temp.path() / "home");
  std::ofstream(temp.path() / "home" / "thesis.tex") << "years of work";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { save_peft(temp.path() / "home", other, /*force=*/true); }),
              HasSubstr("is no adapter folder"));
  EXPECT_TRUE(fs::exists(temp.path() / "home" / "thesis.tex"));
  EXPECT_EQ(temp.num_files(), 2);  // no temporary folder is left
}

TEST(SavePeft, LeavesNothingBehindWhenItFails) {
  const TempFolder temp;
  LoraAdapter empty;
  empty.name = "empty";
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { save_peft(temp.path() / "a", empty); }),
              HasSubstr("adapter 'empty' has no LoRA pairs"));
  EXPECT_EQ(temp.num_files(), 0);
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { save_peft(temp.path() / "no" / "a", random_adapter("a")); }),
              HasSubstr("there is no folder"));
}

TEST(SavePeft, WritesAModelCard) {
  const TempFolder temp;
  auto adapter = random_adapter("a");
  adapter.base_model = "org/na\"me: x";
  save_peft(temp.path() / "a", adapter);
  const auto card = io::read_text_file(temp.path() / "a" / "README.md");
  EXPECT_THAT(card, HasSubstr("---\nbase_model: \"org/na\\\"me: x\"\nlibrary_name: peft\n"));
  EXPECT_THAT(card, HasSubstr("rank 2 and alpha 4 on q_proj, v_proj"));
}

}  // namespace
}  // namespace quiver::adapters
