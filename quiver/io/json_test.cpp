#include "quiver/io/json.h"

#include <limits>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string parse_error_of(std::string_view text) {
  return error_of([&] { parse_json(text, "a.json"); });
}

TEST(ParseJson, BuildsWhatNlohmannBuilds) {
  for (const std::string_view text :
       {R"({"a": [1, -2, 3.5, true, null, "x\u00e9", {"b": {}, "c": []}], "d": {"e": [[1], [2, [3]]]}, "f": 18446744073709551615})", "[]",
        "{}", "3", "\"s\"", "null", " [1 , 2]\n", "\xef\xbb\xbf{\"bom\": 1}"}) {
    EXPECT_EQ(parse_json(text, "a.json"), json::parse(text)) << text;
  }
}

TEST(ParseJson, NamesOriginLineAndColumn) {
  EXPECT_THAT(parse_error_of("{\n  \"a\": 1,\n  \"b\": oops\n}"),
              AllOf(StartsWith("bad format: a.json: not JSON at line 3, column 8: "), HasSubstr("invalid literal")));
  EXPECT_THAT(parse_error_of("[1 2]"), StartsWith("bad format: a.json: not JSON at line 1, column 4: "));
  EXPECT_THAT(parse_error_of(""), StartsWith("bad format: a.json: not JSON at line 1, column 1: "));
  EXPECT_THAT(parse_error_of("[1,"), HasSubstr("line 1, column 4: "));
  EXPECT_THAT(parse_error_of("{} {}"), HasSubstr("line 1, column 4: "));
}

TEST(ParseJson, RefusesInvalidUtf8InAPrintableMessage) {
  const std::string message = parse_error_of("[\"a\xff\"]");
  EXPECT_THAT(message, AllOf(HasSubstr("line 1, column 4"), HasSubstr("UTF-8"), Not(HasSubstr("\xff"))));
  EXPECT_THAT(parse_error_of("[\"\\ud800\"]"), StartsWith("bad format: "));  // half of a surrogate pair
}

TEST(ParseJson, RefusesAZeroByte) {
  EXPECT_THAT(parse_error_of(std::string_view("{}\0garbage", 10)), HasSubstr("line 1, column 3: a zero byte"));
}

TEST(ParseJson, RefusesADuplicateKey) {
  EXPECT_THAT(parse_error_of(R"({"a": 1, "b": {"a": 2}, "a": 3})"), HasSubstr("the key 'a' occurs twice"));
}

TEST(ParseJson, RefusesNumbersThatDoNotFit) { EXPECT_THAT(parse_error_of("[1e999]"), HasSubstr("1e999")); }

TEST(ParseJson, QuotesOnlyTheEndOfALongToken) { EXPECT_LT(parse_error_of("[\"" + std::string(100'000, 'x')).size(), 300); }

TEST(ParseJson, KeepsTheLimitsOfItsCaller) {
  const auto error = [](std::string_view text) {
    return error_of([&] { parse_json(text, "a.json", {.max_depth = 2, .max_values = 4, .max_number_bytes = 10}); });
  };
  EXPECT_EQ(error("[1, [2]]"), "no error");
  EXPECT_EQ(error("[[[1]]]"), "bad format: a.json: not usable JSON: arrays and objects are nested 3 deep; at most 2 is read");
  EXPECT_EQ(error("[1, 2, 3]"), "no error");
  EXPECT_EQ(error("[1, 2, 3, 4]"), "bad format: a.json: not usable JSON: more than 4 values");
  EXPECT_EQ(error(R"({"a": 1, "b": {"c": 2, "d": 3}})"), "bad format: a.json: not usable JSON: more than 4 values");
  EXPECT_EQ(error("1.23456789"), "no error");
  EXPECT_EQ(error("1.234567891"), "bad format: a.json: not usable JSON: a number of 11 characters; at most 10 are read");
}

TEST(ParseJson, CutsALongKeyInItsMessage) {
  const std::string key = std::string(59, 'k') + "\u00e9" + std::string(5000, 'k');
  EXPECT_EQ(parse_error_of("{\"" + key + "\": 1, \"" + key + "\": 2}"),
            "bad format: a.json: not JSON: the key '" + std::string(59, 'k') + "...' occurs twice in one object; keep one of the two");
}

TEST(ParseJson, QuotesOnlyTheStartOfALongNumber) { EXPECT_LT(parse_error_of(std::string(100'000, '9')).size(), 300); }

TEST(ParseJson, LimitsTheDepth) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_error_of(nested(kMaxJsonDepth)), "no error");
  EXPECT_THAT(parse_error_of(nested(kMaxJsonDepth + 1)), HasSubstr("nested 513 deep; at most 512 is read"));
}

TEST(ParseJson, RefusesAMillionOpenBracketsWithoutACrash) {
  EXPECT_THAT(parse_error_of(std::string(1'000'000, '[')), HasSubstr("nested 513 deep; at most 512 is read"));
  std::string objects;
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(parse_error_of(objects), HasSubstr("nested 513 deep; at most 512 is read"));
}

TEST(ReadJsonFile, NamesTheFile) {
  const TempFolder folder;
  write_file_atomic(folder / "a.json", "[1,]");
  EXPECT_THAT(error_of([&] { read_json_file(folder / "a.json"); }), HasSubstr("a.json: not JSON at line 1, column 4"));
  EXPECT_THAT(error_of([&] { read_json_file(folder / "absent.json"); }), StartsWith("not found: "));
}

TEST(DumpJson, SortsKeysAndKeepsUtf8) {
  EXPECT_EQ(dump_json(json{{"b", 1}, {"a", "é\n"}}, "x"), R"({"a":"é\n","b":1})");
  EXPECT_EQ(dump_json(json{{"a", 1}}, "x", 2), "{\n  \"a\": 1\n}");
}

TEST(DumpJson, RefusesWhatJsonCannotHold) {
  const json nan = {{"loss", {1.0, std::numeric_limits<double>::quiet_NaN()}}};
  EXPECT_THAT(error_of([&] { dump_json(nan, "run.json"); }),
              AllOf(StartsWith("usage: cannot write run.json: "), HasSubstr("nan is not a JSON number")));
  EXPECT_THAT(error_of([&] { dump_json(json("\xff"), "run.json"); }), StartsWith("usage: cannot write run.json as JSON"));
}

TEST(RequireMembers, GiveTheValue) {
  const json object = parse_json(R"({"s": "x", "i": -3, "whole": 4.0, "d": 2, "b": true, "a": [1], "o": {}})", "x");
  EXPECT_EQ(require_string(object, "s", "x"), "x");
  EXPECT_EQ(require_int(object, "i", "x"), -3);
  EXPECT_EQ(require_int(object, "whole", "x"), 4);
  EXPECT_EQ(require_double(object, "d", "x"), 2.0);
  EXPECT_TRUE(require_bool(object, "b", "x"));
  EXPECT_EQ(require_array(object, "a", "x").size(), 1);
  EXPECT_TRUE(require_object(object, "o", "x").empty());
}

TEST(RequireMembers, NameTheMissingKeyAndThosePresent) {
  const json object = {{"input", "q"}, {"target", "a"}};
  EXPECT_EQ(error_of([&] { require_string(object, "inputs", "tasks.jsonl:7"); }),
            "bad format: tasks.jsonl:7: the key 'inputs' is missing; found 'input', 'target'");
  EXPECT_THAT(error_of([] { require_int(json::object(), "a", "x"); }), HasSubstr("found no keys"));
  EXPECT_EQ(error_of([] { require_int(json::array(), "a", "x"); }), "bad format: x: expected an object with the key 'a', found array");
}

TEST(RequireMembers, NameTheWrongType) {
  const json object = {{"s", 3}, {"i", 3.5}, {"big", UINT64_MAX}, {"huge", 1e300}, {"b", 1}, {"a", "text"}};
  EXPECT_EQ(error_of([&] { require_string(object, "s", "x"); }), "bad format: x: 's' is number (3); expected a string");
  EXPECT_THAT(error_of([&] { require_int(object, "i", "x"); }), HasSubstr("(3.5); expected an integer of 64 bits"));
  EXPECT_THAT(error_of([&] { require_int(object, "big", "x"); }), HasSubstr("(18446744073709551615); expected"));
  EXPECT_THAT(error_of([&] { require_int(object, "huge", "x"); }), HasSubstr("expected an integer"));
  EXPECT_THAT(error_of([&] { require_double(object, "a", "x"); }), HasSubstr("(\"text\"); expected a number"));
  EXPECT_THAT(error_of([&] { require_bool(object, "b", "x"); }), HasSubstr("expected true or false"));
  EXPECT_THAT(error_of([&] { require_array(object, "a", "x"); }), HasSubstr("expected an array"));
  EXPECT_THAT(error_of([&] { require_object(object, "a", "x"); }), HasSubstr("expected an object"));
}

TEST(FindMembers, TakeNullForAbsentAndRefuseOtherTypes) {
  const json object = {{"null", nullptr}, {"i", 5}, {"s", "x"}, {"d", 0.5}, {"b", false}};
  EXPECT_EQ(find_int(object, "null", "x"), std::nullopt);
  EXPECT_EQ(find_string(object, "absent", "x"), std::nullopt);
  EXPECT_EQ(find_int(object, "i", "x"), 5);
  EXPECT_EQ(find_string(object, "s", "x"), "x");
  EXPECT_EQ(find_double(object, "d", "x"), 0.5);
  EXPECT_EQ(find_bool(object, "b", "x"), false);
  EXPECT_THAT(error_of([&] { find_int(object, "s", "x"); }), HasSubstr("expected an integer"));
}

}  // namespace
}  // namespace quiver::io
