#include "quiver/library/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/io/safetensors.h"
#include "quiver/library/catalogue.h"
#include "quiver/testing/message_of.h"

namespace quiver::library {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::message_of;

/// What is wrong with a file of logits [2, 1, 1, 1] and this metadata.
std::string mixing_refusal(const json& changes) {
  json meta = {{"tasks", {"a", "b"}}, {"skills", {{{"name", "s"}, {"sha256", "0"}}}}, {"rule", "r"}, {"granularity", "g"}, {"heads", 1}};
  meta.update(changes);
  const std::vector<float> logits(2);
  const io::TensorEntry entry{"logits", io::Dtype::kF32, {2, 1, 1, 1}, std::as_bytes(std::span(logits))};
  const auto file = io::serialize_safetensors(std::span(&entry, 1), {{"quiver.mixing", meta.dump()}});
  const auto view = io::SafetensorsView::parse(std::as_bytes(std::span(file)), "file");
  return message_of(ErrorKind::kBadFormat, [&] { parse_mixing(view); });
}

TEST(ParseMixing, NamesWhatIsWrong) {
  EXPECT_THAT(mixing_refusal({{"tasks", {"a", 1}}}), HasSubstr("'file': quiver.mixing: 'tasks' holds a number; expected names"));
  EXPECT_THAT(mixing_refusal({{"tasks", 3}}), HasSubstr("'tasks' is number (3); expected an array"));
  EXPECT_THAT(mixing_refusal({{"skills", {"s"}}}), HasSubstr("expected an object with the key 'name', found string"));
  EXPECT_THAT(mixing_refusal({{"rule", nullptr}}), HasSubstr("'rule' is null"));
  EXPECT_THAT(mixing_refusal({{"heads", 2}}), HasSubstr("'logits' is F32 [2, 1, 1, 1]; expected F32 or F64 [2, units, 2, 1]"));
  EXPECT_THAT(mixing_refusal({{"skills", json::array()}}), HasSubstr("expected F32 or F64 [2, units, 1, 0]"));
}

TEST(ParseMixing, NeedsMetadataAndLogits) {
  const auto refusal = [](const std::map<std::string, std::string>& metadata) {
    const auto file = io::serialize_safetensors({}, metadata);
    const auto view = io::SafetensorsView::parse(std::as_bytes(std::span(file)), "file");
    return message_of(ErrorKind::kBadFormat, [&] { parse_mixing(view); });
  };
  EXPECT_EQ(refusal({}), "'file' has no metadata 'quiver.mixing'");
  EXPECT_EQ(refusal({mixing_metadata({.rule = "r", .granularity = "g"})}), "'file' has no tensor 'logits'; train the skills again");
}

TEST(ParseArtifactRecord, NamesWhatIsMissing) {
  const auto refusal = [](std::string_view text) {
    return message_of(ErrorKind::kBadFormat, [&] { parse_artifact_record(text, "file"); });
  };
  EXPECT_THAT(refusal(R"({"sha256":"0"})"), HasSubstr("file: the key 'meta' is missing"));
  EXPECT_THAT(refusal(R"({"sha256":0,"meta":1})"), HasSubstr("'sha256' is number (0); expected a string"));
  EXPECT_THAT(refusal("[]"), HasSubstr("found array"));
  EXPECT_EQ(parse_artifact_record(R"({"sha256":"0","meta":null})", "file").meta, nullptr);
}

TEST(ParseCatalogue, RefusesWhatLaterWorkWouldTripOver) {
  const auto refusal = [](const json& changes, const json& training = json::object()) {
    const json entry = {{"kind", "private"}, {"tasks", json::array()}, {"created", ""},
                        {"rank", 1},         {"sha256", ""},           {"training", training}};
    json document = {{"format", "quiver library"},
                     {"version", 1},
                     {"base_model", {{"name", "b"}, {"fingerprint", ""}}},
                     {"adapters", {{"a", entry}}},
                     {"groups", json::object()}};
    document.update(changes);
    return message_of(ErrorKind::kBadFormat, [&] { parse_catalogue(document.dump(), "file"); });
  };
  EXPECT_THAT(refusal(json::object(), json::array()), HasSubstr("file: adapter 'a': 'training' is array ([]); expected an object"));
  EXPECT_THAT(refusal({{"groups_provenance", "text"}}), HasSubstr("file: 'groups_provenance' is string"));
  EXPECT_THAT(refusal({{"groups_provenance", {{"joined", 3}}}}),
              HasSubstr("file: groups_provenance: 'joined' is number (3); expected an object"));
}

TEST(CheckAdapterName, TellsTheLength) {
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { check_adapter_name(std::string(129, 'a')); }),
              HasSubstr("a' of 129 bytes cannot name an adapter: use 1 to 128 of the characters"));
}

}  // namespace
}  // namespace quiver::library
