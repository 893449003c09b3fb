#include "quiver/report/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "quiver/report/charts.h"
#include "quiver/report/svg.h"

namespace quiver::report {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(Numbers, ReadWell) {
  EXPECT_EQ(number_text(-0.3104, 3),
            "\xE2\x88\x92"
            "0.310");
  EXPECT_EQ(number_text(-0.0001, 2), "0.00");  // no negative zero
  EXPECT_EQ(number_text(std::nan(""), 2), "\xE2\x80\x93");
  EXPECT_EQ(signed_text(0.5, 1), "+0.5");
  EXPECT_EQ(percent_text(0.714), "71 %");
  EXPECT_EQ(count_text(361821120), "361,821,120");
  EXPECT_EQ(count_text(-1000), "-1,000");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(amount_text(361821120), "362 M");
  EXPECT_EQ(amount_text(29600), "29.6 k");
  EXPECT_EQ(amount_text(999999), "1.0 M");
  EXPECT_EQ(amount_text(12), "12");
  EXPECT_EQ(duration_text(12.44), "12.4 s");
  EXPECT_EQ(duration_text(185), "3 min 5 s");
  EXPECT_EQ(duration_text(4320), "1 h 12 min");
}

TEST(CodePointsOf, ReplacesWhatIsNotUtf8) {
  EXPECT_THAT(code_points_of("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), ElementsAre('a', 0xE9, 0x20AC, 0x1F600));
  EXPECT_THAT(code_points_of("\xC0\x80"), ElementsAre(0xFFFD, 0xFFFD));              // overlong
  EXPECT_THAT(code_points_of("\xED\xA0\x80"), ElementsAre(0xFFFD, 0xFFFD, 0xFFFD));  // a surrogate
  EXPECT_THAT(code_points_of("\xE2\x82"), ElementsAre(0xFFFD));                      // cut off, and one part
  EXPECT_THAT(code_points_of("\xF5\x80\x80\x80"), ElementsAre(0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD));
}

TEST(DisplayWidth, CountsColumns) {
  EXPECT_EQ(display_width("a \xC2\xB1 b"), 5);
  EXPECT_EQ(display_width("\xE5\x9F\xBA"), 2);
  EXPECT_EQ(display_width("e\xCC\x81"), 1);  // e and a combining accent
}

TEST(Shorten, KeepsBothEnds) {
  EXPECT_EQ(shorten("task1336_peixian_classifier", 12),
            "task133\xE2\x80\xA6"
            "fier");
  EXPECT_EQ(shorten("short", 5), "short");
  EXPECT_EQ(shorten("\xE5\x9F\xBA\xE5\x9F\xBA\xE5\x9F\xBA\xE5\x9F\xBA", 6), "\xE5\x9F\xBA\xE2\x80\xA6\xE5\x9F\xBA");
  EXPECT_EQ(shorten("abc", 1), "\xE2\x80\xA6");
}

TEST(Escape, LeavesNoMarkup) {
  EXPECT_EQ(escape("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
  EXPECT_EQ(escape(std::string_view("a\0b\x1B\n", 5)),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\n");
  EXPECT_EQ(escape("\xFF"), "\xEF\xBF\xBD");
  EXPECT_EQ(escape("\xE2\x80\xAE"), "\xEF\xBF\xBD");  // right-to-left override
}

TEST(ScriptJson, CannotCloseItsElement) {
  EXPECT_EQ(script_json({"</script>", "<!--", "\xE2\x80\xA8&"}), "[\"\\u003c/script\\u003e\",\"\\u003c!--\",\"\\u2028\\u0026\"]");
  EXPECT_EQ(script_json("\xFF"), "\"\\ufffd\"");
}

TEST(RoundTicks, AreRoundAndInside) {
  EXPECT_THAT(round_ticks(-0.3, 1.1, 3), ElementsAre(DoubleEq(0), DoubleEq(0.5), DoubleEq(1)));
  EXPECT_THAT(round_ticks(1, 1, 4), IsEmpty());
  EXPECT_EQ(tick_decimals({0, 0.05, 0.1}), 2);
  EXPECT_EQ(tick_decimals({0, 200}), 0);
  EXPECT_EQ(tick_decimals(round_ticks(1e16, 1e16 + 2, 4)), 2);  // steps that rounding loses
}

TEST(PaletteStep, ClampsToThePalette) {
  EXPECT_EQ(palette_step(0), 0);
  EXPECT_EQ(palette_step(0.5), 8);
  EXPECT_EQ(palette_step(1), 15);
  EXPECT_EQ(palette_step(7), 15);
  EXPECT_EQ(palette_step(-1), 0);
  EXPECT_EQ(palette_step(std::nan("")), 0);
}

TEST(Svg, EscapesTextAndTitles) {
  Svg svg(10, 20, "chart", "a \"chart\"");
  svg.rect(1, 2.5, 3, 4.25, "cell", "<tip>");
  svg.text(0, 0, "x < y", "tick");
  EXPECT_EQ(
      svg.str(),
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 10 20\" width=\"10\" height=\"20\" class=\"chart\" role=\"img\" "
      "aria-label=\"a &quot;chart&quot;\"><rect class=\"cell\" x=\"1\" y=\"2.5\" width=\"3\" "
      "height=\"4.25\"><title>&lt;tip&gt;</title></rect><text class=\"tick\" x=\"0\" y=\"0\" text-anchor=\"start\">x &lt; y</text></svg>");
}

TEST(Smoothed, AveragesFromTheFirstValueOn) {
  const Curve curve{.adapter = "a", .kind = "", .steps = {1, 2, 3}, .loss = {4, 2, std::nan("")}};
  const auto line = smoothed(curve, 2);  // keeps one half
  ASSERT_EQ(line.size(), 2u);
  EXPECT_DOUBLE_EQ(line[0].second, 4);  // not pulled towards zero
  EXPECT_DOUBLE_EQ(line[1].second, (0.25 * 4 + 0.5 * 2) / 0.75);
}

TEST(HeatMap, HasATooltipPerCellOrPerRow) {
  HeatMap small;
  small.rows = {"r"};
  small.columns = {"c", "d"};
  small.values = {0.25, std::nan("")};
  EXPECT_THAT(heat_map(small), HasSubstr("<title>r, c: 0.250</title>"));
  EXPECT_THAT(heat_map(small), Not(HasSubstr("r, d")));

  HeatMap large;
  large.rows.assign(60, "row");
  large.columns.assign(60, "column");
  large.values.assign(3600, 0.5);
  large.row_titles.assign(60, "about the row");
  const auto picture = heat_map(large);
  EXPECT_THAT(picture, HasSubstr("<title>about the row</title>"));
  EXPECT_THAT(picture, HasSubstr("<path class=\"cell q8\""));
  EXPECT_LT(picture.size(), 40'000u);
}

}  // namespace
}  // namespace quiver::report
