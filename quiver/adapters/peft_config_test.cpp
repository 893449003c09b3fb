#include "quiver/adapters/peft_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::adapters {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::StartsWith;

/// Rank 4, alpha 16 on q_proj, with changes.
std::string config_text(const json& changes) {
  json config = {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 16}, {"target_modules", {"q_proj"}}};
  config.update(changes);
  return config.dump();
}

PeftConfig parsed(const json& changes) { return parse_peft_config(config_text(changes), "file"); }

std::string refusal(ErrorKind kind, const json& changes) {
  return message_of(kind, [&] { parsed(changes); });
}

TEST(PeftConfig, SelectsTheLayersThatPeftSelects) {
  const auto cases = io::read_json_file("tests/golden/regex/cases.json");
  int compared = 0;
  for (const auto& row : cases.at("layers")) {
    const json changes = {{"target_modules", cases.at("tails")},
                          {"layers_pattern", row.at("layers_pattern")},
                          {"layers_to_transform", row.at("layers_to_transform")}};
    SCOPED_TRACE(changes.dump());
    const std::string expected = row.at("target_modules");
    if (expected.find_first_not_of("01") != std::string::npos) {
      EXPECT_THAT(refusal(ErrorKind::kBadFormat, changes), StartsWith("file: layers_pattern: "));
      continue;
    }
    // An empty layers_to_transform is not looked at in Python; layers_pattern is compiled all the same here.
    if (row.at("layers_to_transform").empty() && row.at("layers_pattern") == json("(?P<idx>layers)")) continue;
    const auto config = parsed(changes);
    std::string found;
    for (const auto& name : cases.at("names")) found += config.selects(name) ? '1' : '0';
    EXPECT_EQ(found, expected);
    ++compared;
  }
  EXPECT_GT(compared, 35);
}

TEST(PeftConfig, TakesAnEmptyLayersPatternForAnyName) {
  const auto config = parsed({{"layers_pattern", ""}, {"layers_to_transform", {1}}});
  EXPECT_TRUE(config.selects("model.layers.1.self_attn.q_proj"));
  EXPECT_TRUE(config.selects("model.h.1.self_attn.q_proj"));
  EXPECT_FALSE(config.selects("model.layers.11.self_attn.q_proj"));
  EXPECT_FALSE(config.selects("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(parsed({{"layers_pattern", ""}}).selects("model.layers.0.self_attn.q_proj"));
}

TEST(PeftConfig, RefusesWhatPeftRefusesOfLayers) {
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"target_modules", ".*q_proj"}, {"layers_to_transform", {1}}}),
              HasSubstr("layers_to_transform is [1] beside target_modules \".*q_proj\", an expression, which PEFT refuses"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"target_modules", ".*q_proj"}, {"layers_pattern", ""}}),
              HasSubstr("layers_pattern is \"\" beside target_modules"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"layers_pattern", "layers"}}),
              HasSubstr("layers_pattern is \"layers\" without layers_to_transform, which PEFT refuses"));
}

TEST(PeftConfig, ReadsAllLinearInAnyCase) {
  EXPECT_EQ(parsed({{"target_modules", "ALL-linear"}}).options.target_modules, std::vector<std::string>{"all-linear"});
}

/// What the module q_proj of layer 0 is scaled by where the key of alpha_pattern gives 100.
double alpha_by(const std::string& key) { return parsed({{"alpha_pattern", {{key, 100}}}}).alpha_of("model.layers.0.self_attn.q_proj"); }

TEST(PeftConfig, ReadsKeysAsPythonDoes) {
  for (const char* key : {"q_proj", "self_attn\\.q_proj\\Z", "\\Amodel.layers.0.self_attn.q_proj", "[]q]_proj",
                          "(?P<n>l)ayers.*(?P=n)?.q_proj", "l(?=ayers).*_proj", "self_attn\\.\\w+", "^model.*", "q_proj$"}) {
    EXPECT_EQ(alpha_by(key), 100) << key;
  }
  for (const char* key : {"proj", "q_proj.", "\\Aq_proj", "[^]q]_proj", "layers\\Z"}) EXPECT_EQ(alpha_by(key), 16) << key;
}

TEST(PeftConfig, NamesTheKeyAndThePatternThatCannotBeRead) {
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{"alpha_pattern", {{"(q)?(?(2)a|b)", 1}}}}),
              HasSubstr("file: alpha_pattern: the regular expression '(q)?(?(2)a|b)' has a condition on a group at byte 6"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"rank_pattern", {{"(q_proj", 1}}}}),
              HasSubstr("file: rank_pattern: '(q_proj' is no regular expression of Python: it has a group without ')'"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"exclude_modules", "*"}}), HasSubstr("file: exclude_modules: '*' is no regular expression"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, {{"layers_to_transform", 1}, {"layers_pattern", "["}}),
              HasSubstr("file: layers_pattern: '['"));
}

TEST(PeftConfig, RefusesDeepAndLongPatterns) {
  const auto deep = std::string(200'000, '(') + std::string(200'000, ')');
  const std::string too_long = "a regular expression of 400000 bytes; at most 65536 are read";
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{"target_modules", deep}}), HasSubstr("file: target_modules: " + too_long));
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{"exclude_modules", deep}}), HasSubstr("file: exclude_modules: " + too_long));
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{"layers_to_transform", 1}, {"layers_pattern", deep}}),
              HasSubstr("layers_pattern: " + too_long));
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{key, {{deep, 1}}}}), HasSubstr(std::string(key) + ": " + too_long));
  }
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, {{"target_modules", deep.substr(199'000, 2000)}}),
              HasSubstr("groups nested deeper than 100"));
}

TEST(PeftConfig, BoundsWhatItReads) {
  const std::vector<std::int64_t> many(kMaxPeftConfigEntries + 1, 1);
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"layers_to_transform", many}}),
            "file: layers_to_transform has 65537 entries; at most 65536 are read");
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"target_modules", std::vector<std::string>(kMaxPeftConfigEntries + 1, "q")}}),
            "file: target_modules has 65537 entries; at most 65536 are read");
  json keys = json::object();
  for (std::int64_t i = 0; i <= kMaxPeftConfigEntries; ++i) keys[std::to_string(i)] = 1;
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"rank_pattern", keys}}), "file: rank_pattern has 65537 entries; at most 65536 are read");
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"r", 65537}}), "file: r is 65537; at most 65536 is read");
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"rank_pattern", {{"q", 65537}}}}),
            "file: rank_pattern of 'q' is 65537; at most 65536 is read");
  EXPECT_EQ(refusal(ErrorKind::kBadFormat, {{"rank_pattern", {{"q", 0}}}}), "file: rank_pattern of 'q' is 0; it must be at least 1");
  EXPECT_EQ(refusal(ErrorKind::kUnsupported, {{"base_model_name_or_path", std::string(4097, 'a')}}),
            "file: base_model_name_or_path has 4097 bytes; at most 4096 are read");
  EXPECT_EQ(message_of(ErrorKind::kUnsupported, [] { parse_peft_config(std::string(kMaxPeftConfigBytes + 1, ' '), "file"); }),
            "file: 16777217 bytes; at most 16777216 are read");
}

TEST(PeftConfig, ReadsLayersBeyondAnyModelAsNone) {
  const auto config = parsed({{"layers_to_transform", {1, -1}}});
  EXPECT_TRUE(config.selects("model.layers.0001.q_proj"));
  EXPECT_FALSE(config.selects("model.layers.18446744073709551615.q_proj"));
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { config.selects("model.layers.\u0661.q_proj"); }),
              HasSubstr("expected ASCII digits"));
}

}  // namespace
}  // namespace quiver::adapters
