#include "quiver/adapters/peft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <atomic>
#include <thread>

#include "quiver/adapters/rows.h"
#include "quiver/adapters/test_support.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::adapters {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const fs::path kGolden = "tests/golden/peft";  // written by PEFT; tests run in the root of the project

/// A folder whose tensors are these.
fs::path with_tensors(const TempFolder& temp, const tensor::TensorMap& tensors) {
  const auto folder = temp.path() / "edited";
  save_peft(folder, random_adapter("a"), /*force=*/true);
  tensor::save_tensors(folder / kPeftTensorsFile, tensors);
  return folder;
}

TEST(LoadPeft, ReadsWhatPeftWrote) {
  const auto adapter = load_peft(kGolden / "plain");
  EXPECT_EQ(adapter.name, "plain");
  EXPECT_EQ(adapter.base_model, "llama-tied");
  EXPECT_EQ(adapter.base_fingerprint, "");
  EXPECT_EQ(adapter.options.rank, 4);
  EXPECT_EQ(adapter.options.alpha, 16);
  EXPECT_THAT(adapter.options.target_modules, ElementsAre("k_proj", "o_proj", "q_proj", "v_proj"));
  EXPECT_EQ(adapter.pairs.size(), 8u);
  const auto tensors = tensor::load_tensors(kGolden / "plain" / kPeftTensorsFile);
  const auto& pair = adapter.pairs.at("layers.1.self_attn.v_proj");
  EXPECT_TRUE(torch::equal(pair.lora_a(), tensors.at("base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight")));
  EXPECT_TRUE(torch::equal(pair.lora_b(), tensors.at("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight")));
  EXPECT_DOUBLE_EQ(pair.scaling(), 4.0);
}

TEST(LoadPeft, GivesPatternsTheMeaningOfPeft) {
  const auto adapter = load_peft(kGolden / "patterns");
  const auto size = [&](const std::string& path) {
    const auto& pair = adapter.pairs.at(path);
    return format("{} {}", pair.rank(), pair.alpha());
  };
  EXPECT_EQ(size("layers.0.self_attn.q_proj"), "3 16");
  EXPECT_EQ(size("layers.0.self_attn.k_proj"), "4 16");
  EXPECT_EQ(size("layers.0.self_attn.v_proj"), "4 32");
  EXPECT_EQ(size("layers.0.self_attn.o_proj"), "2 5");
  EXPECT_EQ(size("layers.1.self_attn.q_proj"), "3 16");
  EXPECT_EQ(size("layers.1.self_attn.k_proj"), "4 1");  // by a regular expression
  EXPECT_EQ(size("layers.1.self_attn.v_proj"), "4 16");
  EXPECT_EQ(size("layers.1.self_attn.o_proj"), "8 5");  // the first pattern of the file wins
}

TEST(LoadPeft, ScalesByTheRootOfEachModulesRank) {
  const auto adapter = load_peft(kGolden / "rslora-patterns");
  EXPECT_DOUBLE_EQ(adapter.pairs.at("layers.0.self_attn.q_proj").scaling(), 16.0 / 3.0);
  EXPECT_DOUBLE_EQ(adapter.pairs.at("layers.0.self_attn.v_proj").scaling(), 1.0);
  EXPECT_DOUBLE_EQ(adapter.pairs.at("layers.0.self_attn.o_proj").scaling(), 8.0);
}

TEST(LoadPeft, ReadsTargetsGivenAsAnExpression) {
  const auto adapter = load_peft(kGolden / "regex-targets");
  EXPECT_EQ(adapter.pairs.size(), 2u);
  EXPECT_THAT(adapter.options.target_modules, ElementsAre("down_proj", "q_proj"));
}

TEST(LoadPeft, ReadsOneFolderWhileItIsReplaced) {
  const TempFolder temp;
  const auto folder = temp.path() / "adapter";
  auto one = random_adapter("one", 2), two = random_adapter("two", 3);
  one.name = two.name = "adapter";
  save_peft(folder, one);
  std::atomic<bool> is_done = false;
  std::thread writer([&] {
    for (int i = 0; i < 150; ++i) save_peft(folder, i % 2 == 0 ? two : one, /*force=*/true);
    is_done = true;
  });
  int seen[2] = {0, 0};
  while (!is_done) {
    const auto adapter = load_peft(folder);
    const bool is_one = same_pairs(adapter, one);
    EXPECT_TRUE(is_one || same_pairs(adapter, two));
    ++seen[is_one ? 0 : 1];
  }
  writer.join();
  EXPECT_GT(seen[0], 0);
  EXPECT_GT(seen[1], 0);
}

class SupportedFolders : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Peft, SupportedFolders,
                         ::testing::Values("plain", "bf16", "one-module", "patterns", "rslora", "rslora-patterns", "all-linears",
                                           "regex-targets", "one-layer", "fan-in-fan-out", "dora", "lora-bias", "modules-to-save",
                                           "embedding", "head", "saved-embedding", "saved-head", "tokens"));

TEST_P(SupportedFolders, KeepTheirConfigurationThroughQuiver) {
  const TempFolder temp;
  const auto adapter = load_peft(kGolden / GetParam());
  save_peft(temp.path() / "copy", adapter);
  EXPECT_EQ(config_of(temp.path() / "copy"), config_of(kGolden / GetParam()));
  EXPECT_TRUE(same_pairs(load_peft(temp.path() / "copy"), adapter));
  EXPECT_EQ(io::read_text_file(temp.path() / "copy" / kPeftConfigFile) + "\n", io::read_text_file(kGolden / GetParam() / kPeftConfigFile));
}

TEST(LoadPeft, RefusesByName) {
  const auto refusal = [](const char* name) { return message_of(ErrorKind::kUnsupported, [&] { load_peft(kGolden / name); }); };
  EXPECT_THAT(refusal("tied-embedding"), HasSubstr("ensure_weight_tying is true"));
  EXPECT_THAT(refusal("dora-embedding"), HasSubstr("'model.embed_tokens' is an embedding with a DoRA"));
}

TEST(LoadPeft, ReadsWhatIsBesideTheFactors) {
  const TempFolder temp;
  for (const char* name : {"modules-to-save", "saved-embedding", "saved-head", "tokens"}) {
    SCOPED_TRACE(name);
    const auto adapter = load_peft(kGolden / name);
    save_peft(temp.path() / name, adapter);
    const auto given = tensor::load_tensors(kGolden / name / kPeftTensorsFile),
               kept = tensor::load_tensors(temp.path() / name / kPeftTensorsFile);
    EXPECT_EQ(given.size(), kept.size());
    for (const auto& [key, value] : given) EXPECT_TRUE(kept.contains(key) && torch::equal(kept.at(key), value)) << key;
  }
  EXPECT_EQ(load_peft(kGolden / "modules-to-save").whole.size(), 5u);  // all norms: PEFT looks for the end of a name
  EXPECT_FALSE(load_peft(kGolden / "saved-embedding").whole.at("embed_tokens.weight").is_of_tied_head);
  EXPECT_THAT(load_peft(kGolden / "tokens").tokens.at("embed_tokens").tokens, ElementsAre(3, 71, 72, 110));
  EXPECT_THAT(
      message_of(ErrorKind::kUnsupported, [&] { refuse_more_than_lora(load_peft(kGolden / "tokens"), "route by"); }),
      HasSubstr("adapter 'tokens' holds rows of single tokens, trainable_token_indices (at embed_tokens): it cannot be used to route by"));
}

TEST(LoadPeft, ReadsNamesOfMicrosoftsPhi) {
  const TempFolder temp;
  tensor::TensorMap tensors;
  const auto add = [&](const std::string& module, std::int64_t out) {
    tensors.emplace("base_model.model." + module + ".lora_A.weight", torch::rand({2, 6}));
    tensors.emplace("base_model.model." + module + ".lora_B.weight", torch::rand({out, 2}));
  };
  add("transformer.h.3.mixer.Wqkv", 18);
  add("transformer.h.3.mixer.out_proj", 6);
  add("transformer.h.3.mlp.fc1", 24);
  const auto folder = with_tensors(temp, tensors);
  auto config = config_of(folder);
  config["target_modules"] = {"Wqkv", "out_proj", "fc1", "fc2"};
  io::write_file_atomic(folder / kPeftConfigFile, config.dump());
  const auto adapter = load_peft(folder);
  std::vector<std::string> paths;
  for (const auto& [path, pair] : adapter.pairs) paths.push_back(path);
  EXPECT_THAT(paths, ElementsAre("layers.3.mlp.fc1", "layers.3.self_attn.dense", "layers.3.self_attn.qkv_proj"));
  EXPECT_EQ(peft_paths(folder), std::set<std::string>(paths.begin(), paths.end()));
  EXPECT_THAT(load_report(adapter).unused, ElementsAre("target module 'fc2' has no tensor"));
}

TEST(LoadPeft, SharesOneLoraAOfQueryKeyValue) {
  const TempFolder temp;
  const std::string block = "base_model.model.model.layers.0.self_attn.";
  const auto a = torch::rand({2, 6});
  tensor::TensorMap tensors = {{block + "k_proj.lora_A.weight", a}};
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) tensors.emplace(block + name + ".lora_B.weight", torch::rand({4, 2}));
  const auto load = [&](const std::map<std::string, std::string>& metadata) {
    const auto folder = with_tensors(temp, {{block + "q_proj.lora_A.weight", a}});
    tensor::save_tensors(folder / kPeftTensorsFile, tensors, metadata);
    auto config = config_of(folder);
    config["target_modules"] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    io::write_file_atomic(folder / kPeftConfigFile, config.dump());
    return load_peft(folder);
  };
  for (const auto& [path, pair] : load({}).pairs) EXPECT_TRUE(torch::equal(pair.lora_a(), a)) << path;
  // Of another module only by name, as safetensors' save_model says it.
  tensors.emplace(block + "o_proj.lora_B.weight", torch::rand({4, 2}));
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { load({}); }), HasSubstr("lack their partner: '" + block + "o_proj.lora_B.weight'"));
  const auto named = load({{block + "o_proj.lora_A.weight", block + "k_proj.lora_A.weight"}});
  EXPECT_TRUE(torch::equal(named.pairs.at("layers.0.self_attn.o_proj").lora_a(), a));
}

TEST(LoadReport, TellsWhatWasReadAndWhatIsIdle) {
  const TempFolder temp;
  const auto folder = with_config(temp, random_adapter("a"), {{"rank_pattern", {{"up_proj", 7}}}, {"colour", "red"}});
  const auto report = load_report(load_peft(folder));
  EXPECT_EQ(report.projections.size(), 4u);
  EXPECT_EQ(report.projections[0].path, "layers.0.self_attn.q_proj");
  EXPECT_EQ(report.projections[0].rank, 2);
  EXPECT_EQ(report.projections[0].scaling, 2.0);
  EXPECT_THAT(report.unused, ElementsAre("unknown key colour=\"red\"", "rank_pattern 'up_proj' matches no tensor"));
  EXPECT_EQ(load_report(load_peft(kGolden / "lora-bias")).projections[0].kind, "LoRA with bias");
  EXPECT_THAT(load_report(load_peft(kGolden / "tokens")).whole, ElementsAre("4 rows of embed_tokens"));
}

TEST(Complete, GivesWhatIsMissingAsNoChange) {
  std::vector<LoraAdapter> adapters = {random_adapter("a", 2, 4), random_adapter("b", 3, 6)};
  std::erase_if(adapters[0].pairs, [](const auto& entry) { return entry.first.ends_with("v_proj"); });
  std::erase_if(adapters[1].pairs, [](const auto& entry) { return entry.first == kPath; });
  complete(adapters);
  EXPECT_EQ(adapters[0].pairs.size(), 4u);
  EXPECT_EQ(adapters[1].pairs.size(), 4u);
  const auto& added = adapters[0].pairs.at("layers.0.self_attn.v_proj");
  EXPECT_EQ(added.rank(), 3);
  EXPECT_EQ(added.out_features(), 4);
  EXPECT_FALSE(added.delta().any().item<bool>());
  EXPECT_EQ(adapters[1].pairs.at(kPath).scaling(), adapters[0].pairs.at(kPath).scaling());
  EXPECT_TRUE(adapters[1].pairs.at("layers.0.self_attn.q_proj").delta().any().item<bool>());
}

TEST(LoadPeft, RefusesConfigurationsThatMeanMore) {
  const TempFolder temp;
  const auto refusal = [&](const nlohmann::json& changes) {
    return message_of(ErrorKind::kUnsupported, [&] { load_peft(with_config(temp, random_adapter("a"), changes)); });
  };
  EXPECT_THAT(refusal({{"peft_type", "IA3"}}), HasSubstr("peft_type is 'IA3'"));
  EXPECT_THAT(refusal({{"init_lora_weights", "pissa_niter_16"}}), HasSubstr("changes the base weight"));
  EXPECT_THAT(refusal({{"init_lora_weights", "olora"}}), HasSubstr("\"olora\""));
  EXPECT_THAT(refusal({{"target_parameters", {"experts.up"}}}), HasSubstr("target_parameters"));
  EXPECT_THAT(refusal({{"layer_replication", nlohmann::json::parse("[[0, 2]]")}}), HasSubstr("layer_replication"));
  EXPECT_THAT(refusal({{"alora_invocation_tokens", {7}}}), HasSubstr("alora_invocation_tokens"));
  EXPECT_THAT(refusal({{"target_modules", "(?x) .*"}}), HasSubstr("regular expression '(?x) .*' has the flag 'x'"));
}

TEST(LoadPeft, IgnoresWhatChangesNothing) {
  const TempFolder temp;
  const auto folder = with_config(temp, random_adapter("a"),
                                  {{"init_lora_weights", "gaussian"},
                                   {"use_new_method", false},
                                   {"new_config", nullptr},
                                   {"task_type", nullptr},
                                   {"ensure_weight_tying", true},
                                   {"revision", "main"}});
  EXPECT_TRUE(same_pairs(load_peft(folder), random_adapter("a")));
}

TEST(LoadPeft, RefusesTensorsThatContradictTheConfiguration) {
  const TempFolder temp;
  const auto refusal = [&](const nlohmann::json& changes) {
    return message_of(ErrorKind::kMismatch, [&] { load_peft(with_config(temp, random_adapter("a"), changes)); });
  };
  EXPECT_THAT(refusal({{"r", 3}}), HasSubstr("of rank 2, but adapter_config.json says rank 3"));
  EXPECT_THAT(refusal({{"rank_pattern", {{"1.self_attn.v_proj", 5}}}}), HasSubstr("layers.1.self_attn.v_proj' has lora_A"));
  EXPECT_THAT(refusal({{"target_modules", {"q_proj"}}}), HasSubstr("v_proj' has LoRA factors, but target_modules"));
  EXPECT_THAT(refusal({{"exclude_modules", {"q_proj"}}}), HasSubstr("q_proj' has LoRA factors"));
  EXPECT_THAT(refusal({{"layers_to_transform", 0}}), HasSubstr("layers.1.self_attn.q_proj' has LoRA factors"));
  EXPECT_NO_THROW(load_peft(with_config(temp, random_adapter("a"), {{"layers_to_transform", {0, 1}}})));
  EXPECT_NO_THROW(load_peft(with_config(temp, random_adapter("a"), {{"rank_pattern", {{"self_attn.(q|v)_proj", 2}}}})));
}

TEST(LoadPeft, RefusesBrokenConfigurations) {
  const TempFolder temp;
  const auto refusal = [&](const nlohmann::json& changes) {
    return message_of(ErrorKind::kBadFormat, [&] { load_peft(with_config(temp, random_adapter("a"), changes)); });
  };
  EXPECT_THAT(refusal({{"r", 0}}), HasSubstr("r is 0"));
  EXPECT_THAT(refusal({{"r", "four"}}), HasSubstr("adapter_config.json"));
  EXPECT_THAT(refusal({{"lora_dropout", 1.5}}), HasSubstr("lora_dropout is 1.5"));
  EXPECT_THAT(refusal({{"rank_pattern", {{"q_proj", 2.5}}}}), HasSubstr("rank_pattern of 'q_proj' is 2.5, not a number"));
  EXPECT_THAT(refusal({{"target_modules", {1, 2}}}), HasSubstr("target_modules holds 1"));
  EXPECT_THAT(refusal({{"peft_type", nullptr}}), HasSubstr("peft_type"));
}

TEST(LoadPeft, ReadsNamesWithTheAdaptersName) {
  const TempFolder temp;
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto a = torch::rand({2, 6}), b = torch::rand({8, 2});
  const auto adapter = load_peft(with_tensors(temp, {{q + "lora_A.default.weight", a}, {q + "lora_B.default.weight", b}}));
  EXPECT_TRUE(torch::equal(adapter.pairs.at("layers.0.self_attn.q_proj").lora_a(), a));
  EXPECT_TRUE(torch::equal(adapter.pairs.at("layers.0.self_attn.q_proj").lora_b(), b));
  const auto two = with_tensors(temp, {{q + "lora_A.one.weight", a}, {q + "lora_B.two.weight", b}});
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { load_peft(two); }), HasSubstr("holds 2 adapters, 'one', 'two'"));
}

TEST(LoadPeft, RefusesTheEmptyTensorsOfZero3) {
  const TempFolder temp;
  auto tensors = tensor::load_tensors(kGolden / "plain" / kPeftTensorsFile);
  const std::string name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  ASSERT_TRUE(tensors.contains(name));
  tensors[name] = torch::empty({0});
  const auto folder = with_config(temp, load_peft(kGolden / "plain"), nlohmann::json::object());
  tensor::save_tensors(folder / kPeftTensorsFile, tensors);
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { load_peft(folder); }),
              HasSubstr("'" + name + "' is empty, as DeepSpeed's ZeRO-3 writes what lies on other devices"));
}

TEST(LoadPeft, ReadsTheMagnitudeUnderEachOfItsNames) {
  const TempFolder temp;
  const auto tensors = tensor::load_tensors(kGolden / "dora" / kPeftTensorsFile);
  const auto expected = load_peft(kGolden / "dora");
  for (const std::string suffix : {".weight", ".default.weight", ".default"}) {
    const bool is_clean = suffix == ".weight";
    tensor::TensorMap renamed;
    for (const auto& [key, value] : tensors) {
      std::string name = key;
      const bool is_magnitude = name.ends_with("lora_magnitude_vector");
      if (!is_clean && !is_magnitude) name.insert(name.rfind(".weight"), ".default");
      renamed.emplace(is_magnitude ? name + suffix : name, value);
    }
    const auto folder = temp.path() / "dora";
    fs::create_directories(folder);
    fs::copy_file(kGolden / "dora" / kPeftConfigFile, folder / kPeftConfigFile, fs::copy_options::overwrite_existing);
    tensor::save_tensors(folder / kPeftTensorsFile, renamed);
    EXPECT_TRUE(same_pairs(load_peft(folder), expected)) << suffix;
  }
}

TEST(LoadPeft, TakesFactorsOfTwoDtypesInTheWider) {
  const TempFolder temp;
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto a = torch::rand({2, 6}).to(torch::kBFloat16), b = torch::rand({8, 2});
  const auto adapter = load_peft(with_tensors(temp, {{q + "lora_A.weight", a}, {q + "lora_B.weight", b}}));
  EXPECT_TRUE(torch::equal(adapter.pairs.at("layers.0.self_attn.q_proj").lora_a(), a.to(torch::kFloat)));
}

TEST(LoadPeft, NamesTheFirstNumberThatIsNotFinite) {
  const TempFolder temp;
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto a = torch::rand({2, 6}), b = torch::rand({8, 2});
  b[3][1] = std::numeric_limits<float>::quiet_NaN();
  const auto folder = with_tensors(temp, {{q + "lora_A.weight", a}, {q + "lora_B.weight", b}});
  const auto message = message_of(ErrorKind::kBadFormat, [&] { load_peft(folder); });
  EXPECT_THAT(message, HasSubstr("'" + q + "lora_B.weight' holds nan at [3, 1]"));
  const auto huge = with_config(temp, random_adapter("a"), {{"lora_alpha", 1e308}});
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { load_peft(huge); }), HasSubstr("lora_alpha 1e+308"));
}

TEST(LoadPeft, NamesTrainedBiases) {
  const TempFolder temp;
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto folder = with_tensors(
      temp,
      {{q + "lora_A.weight", torch::rand({2, 6})}, {q + "lora_B.weight", torch::rand({8, 2})}, {q + "base_layer.bias", torch::ones({8})}});
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { load_peft(folder); }), HasSubstr("biases that were trained"));
}

TEST(LoadPeft, NamesFactorsWithoutPartnerAndStrangers) {
  const TempFolder temp;
  const auto a = torch::ones({2, 6});
  const auto b = torch::ones({8, 2});
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.";
  const auto load = [&](const tensor::TensorMap& tensors) { load_peft(with_tensors(temp, tensors)); };
  EXPECT_THAT(message_of(ErrorKind::kBadFormat,
                         [&] {
                           load({{q + "lora_A.weight", a}});
                         }),
              HasSubstr("lack their partner: '" + q + "lora_A.weight'"));
  EXPECT_THAT(message_of(ErrorKind::kUnsupported,
                         [&] {
                           load({{q + "lora_A.weight", a}, {q + "lora_B.weight", b}, {q + "lora_bias", a}});
                         }),
              HasSubstr("'" + q + "lora_bias'"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           load({{q + "lora_A.weight", a}, {q + "lora_B.weight", b}, {q + "lora_magnitude_vector", torch::ones({8})}});
                         }),
              HasSubstr("has a lora_magnitude_vector, but use_dora is false"));
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { load({}); }), HasSubstr("no LoRA factors at all"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           load({{q + "lora_A.weight", a}, {q + "lora_B.weight", b.t().contiguous()}});
                         }),
              HasSubstr("module 'model.layers.0.self_attn.q_proj': not a LoRA pair"));
  EXPECT_THAT(
      message_of(ErrorKind::kBadFormat,
                 [&] {
                   const std::string bare = "base_model.model.layers.0.self_attn.q_proj.";
                   load({{q + "lora_A.weight", a}, {q + "lora_B.weight", b}, {bare + "lora_A.weight", a}, {bare + "lora_B.weight", b}});
                 }),
      HasSubstr("'layers.0.self_attn.q_proj' is there twice"));
}

TEST(LoadPeft, AcceptsAdaptersOfABareDecoder) {
  const TempFolder temp;
  const std::string q = "base_model.model.layers.0.self_attn.q_proj.";
  const auto folder = with_tensors(temp, {{q + "lora_A.weight", torch::ones({2, 6})}, {q + "lora_B.weight", torch::ones({8, 2})}});
  EXPECT_TRUE(load_peft(folder).pairs.contains("layers.0.self_attn.q_proj"));
}

TEST(LoadPeft, SaysWhatIsMissing) {
  const TempFolder temp;
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { load_peft(temp.path() / "none"); }),
              HasSubstr("no adapter_config.json (there is no such folder)"));
  save_peft(temp.path() / "a", random_adapter("a"));
  fs::rename(temp.path() / "a" / kPeftTensorsFile, temp.path() / "a" / "adapter_model.bin");
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { load_peft(temp.path() / "a"); }), HasSubstr("Python pickle"));
}

}  // namespace
}  // namespace quiver::adapters
