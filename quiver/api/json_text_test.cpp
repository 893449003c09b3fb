#include "quiver/api/json_text.h"

#include <bit>
#include <cmath>
#include <limits>

#include "quiver/api/test_support.h"
#include "quiver/base/random.h"
#include "quiver/base/utf8.h"

namespace quiver::api {
namespace {

using nlohmann::json;

std::string written(std::string_view text) {
  std::string out;
  append_json(out, text);
  return out;
}

std::string written_number(double value) {
  std::string out;
  append_log_prob(out, value);
  return out;
}

TEST(AppendJson, EscapesWhatClientsTakeForLineBreaks) {
  EXPECT_EQ(written("a\"b\\c\n\r\t\x01\x7f"), "\"a\\\"b\\\\c\\n\\r\\t\\u0001\x7f\"");
  EXPECT_EQ(written("\u2028\u2029\u0085\u2027\u0084"), "\"\\u2028\\u2029\\u0085\u2027\u0084\"");
  EXPECT_EQ(written("\xff"), "\"\uFFFD\"");
}

TEST(AppendJson, IsReadBackForAnyBytes) {
  RandomStream random(1, "append_json");
  constexpr const char* kPieces[] = {"\"", "\\", "\n", "\u2028", "\xe2\x80", "\xc2", "\x85", "\xf0\x9f", "a", "\u00e9", "\0"};
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (auto left = random.below(12); left > 0; --left) {
      if (random.below(2) == 0) {
        text += kPieces[random.below(std::size(kPieces))];
      } else {
        text += static_cast<char>(random.below(256));
      }
    }
    const auto json_text = written(text);
    EXPECT_EQ(json::parse(json_text).get<std::string>(), replace_invalid_utf8(text));
    EXPECT_EQ(json_text.find('\n'), std::string::npos);
  }
}

TEST(AppendJson, WritesIntegers) {
  std::string out;
  append_json(out, std::numeric_limits<std::int64_t>::min());
  append_json(out, std::vector<std::int32_t>{-1, 0, 49151});
  append_json(out, std::vector<std::int32_t>{});
  EXPECT_EQ(out, "-9223372036854775808[-1,0,49151][]");
}

TEST(AppendLogProb, ReadsBackAsTheSameDouble) {
  EXPECT_EQ(written_number(-0.1), "-0.1");
  EXPECT_EQ(written_number(0), "0.0");
  EXPECT_EQ(written_number(-2), "-2.0");
  EXPECT_EQ(written_number(-1e-7), "-1e-07");
  EXPECT_EQ(written_number(-std::numeric_limits<double>::infinity()), "-9999.0");
  EXPECT_EQ(written_number(std::nan("")), "-9999.0");
  RandomStream random(1, "append_log_prob");
  for (int round = 0; round < 20'000; ++round) {
    const auto bits = random.next();
    const auto value = round % 2 == 0 ? -random.uniform(0, 30) : std::bit_cast<double>(bits);
    if (!std::isfinite(value)) continue;
    const auto back = json::parse(written_number(value));
    EXPECT_TRUE(back.is_number_float());
    EXPECT_EQ(std::bit_cast<std::uint64_t>(back.get<double>()), std::bit_cast<std::uint64_t>(value));
  }
}

}  // namespace
}  // namespace quiver::api
