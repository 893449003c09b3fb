#include "quiver/api/json_body.h"

#include "quiver/api/test_support.h"

namespace quiver::api::parse_body_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string refusal(std::string_view body) {
  return refusal_of([&] { static_cast<void>(parse_body(body)); });
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

TEST(ParseBody, ReadsAnObject) {
  EXPECT_EQ(parse_body(" {\"a\": [1, 2.5, \"x\"]}\n").dump(), R"({"a":[1,2.5,"x"]})");
  EXPECT_EQ(parse_body("\xef\xbb\xbf{}").dump(), "{}");
  EXPECT_EQ(refusal("{\"a\":" + repeated("[", 63) + repeated("]", 63) + "}"), "ok");
}

TEST(ParseBody, RefusesWhatIsHostileWithAPlace) {
  constexpr const char* kStart = "400 invalid_json -: the request's body: not JSON at line ";
  EXPECT_THAT(refusal(""), StartsWith(std::string(kStart) + "1, column 1"));
  EXPECT_THAT(refusal("{\n  \"a\": oops}"), StartsWith(std::string(kStart) + "2, column 8"));
  EXPECT_THAT(refusal("{\"a\": \"\xff\"}"), AllOf(StartsWith(std::string(kStart) + "1, column 8"), HasSubstr("UTF-8")));
  EXPECT_THAT(refusal("{\"a\": \"\\ud800\"}"), StartsWith(kStart));
  EXPECT_THAT(refusal(std::string_view("{}\0", 3)), StartsWith(std::string(kStart) + "1, column 3: a zero byte"));
  EXPECT_THAT(refusal("{\"a\": NaN}"), StartsWith(kStart));
  EXPECT_THAT(refusal("{\"a\": 1e999}"), StartsWith(kStart));
  EXPECT_THAT(refusal("{} {}"), StartsWith(kStart));
  EXPECT_THAT(refusal("{\"a\": 1, \"a\": 2}"), HasSubstr("the key 'a' occurs twice"));
  EXPECT_THAT(refusal(repeated("[", 100'000)), HasSubstr("nested 65 deep; at most 64"));
  EXPECT_THAT(refusal("{\"a\":" + repeated("{\"a\":", 100'000)), HasSubstr("nested 65 deep; at most 64"));
  EXPECT_THAT(refusal("{\"a\":" + repeated("1", 1'000'000) + "}"), HasSubstr("column 1000005: number overflow parsing '111"));
  EXPECT_LT(refusal("{\"a\":" + repeated("1", 1'000'000) + "}").size(), 400);
  EXPECT_THAT(refusal("{\"a\":0." + repeated("1", 1'000'000) + "}"), HasSubstr("a number of 1000002 characters; at most 64"));
  EXPECT_THAT(refusal("{\"a\":[" + repeated("1,", 1'000'000) + "1]}"), HasSubstr("more than 1000000 values"));
  EXPECT_THAT(refusal("[1, 2]"), HasSubstr("the request's body is an array of 2 values; expected a JSON object"));
  EXPECT_THAT(refusal("\"text\""), HasSubstr("the request's body is the string \"text\"; expected a JSON object"));
  EXPECT_LT(refusal("\"" + repeated("x", 1'000'000)).size(), 300);
  EXPECT_LT(refusal("{\"" + repeated("k", 100'000) + "\":1,\"" + repeated("k", 100'000) + "\":1}").size(), 300);
}

TEST(CheckContentType, AcceptsJsonAlone) {
  for (const char* type : {"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=\"UTF-8\"",
                           "application/vnd.api+json", " application/json "}) {
    EXPECT_EQ(refusal_of([&] { check_content_type(type); }), "ok") << type;
  }
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=application/json",
                           "application/jsonp", "json", "application/json; charset=latin1", "text/plain; a=application/json"}) {
    EXPECT_THAT(refusal_of([&] { check_content_type(type); }),
                AllOf(StartsWith("415 - -: "), HasSubstr(type), HasSubstr("-H 'Content-Type: application/json'")))
        << type;
  }
  EXPECT_THAT(refusal_of([] { check_content_type(""); }), HasSubstr("the body's Content-Type is missing"));
}

}  // namespace
}  // namespace quiver::api::parse_body_test
