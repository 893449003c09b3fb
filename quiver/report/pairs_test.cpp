#include "quiver/report/pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/report/report.h"
#include "quiver/report/text_table.h"

namespace quiver::report {
namespace {

using ::testing::HasSubstr;

std::string text_of(const nlohmann::json& document, int width) {
  return render_text_table(results::from_json(document, "the results"), width);
}

std::string html_of(const nlohmann::json& document) { return render_report(std::vector{results::from_json(document, "the results")}); }

std::size_t times(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

/// Base and three methods on training tasks: the first beats the base by sample, not by task; the oracle beats all.
nlohmann::json compared_results(const char* section = "train") {
  auto document = io::parse_json(R"({
    "quiver_results": 1,
    "methods": [{"name": "base", "label": "Base"}, {"name": "private-lag", "label": "Private, LAG"},
                {"name": "cluster-mean", "label": "Cluster, mean"}, {"name": "private-oracle", "label": "Private, oracle"}],
    "metrics": [{"name": "nll", "label": "NLL", "better": "lower"}]})",
                                 "the sample");
  const auto row = [&](const char* method, double mean) {
    document["summary"].push_back({{"section", section}, {"method", method}, {"metric", "nll"}, {"mean", mean}, {"n", 1200}});
  };
  const auto pair = [&](const char* method, const char* other, double mean, double row_p, double task_p) {
    const auto test = [&](const char* name, double p) {
      const double reach = p < 0.05 ? 0.5 : 2;  // of the interval for all pairs at once
      return nlohmann::json{{"low", mean - 0.25},
                            {"high", mean + 0.25},
                            {"simultaneous_low", mean - reach},
                            {"simultaneous_high", mean + reach},
                            {"test", name},
                            {"p", p / 6},
                            {"corrected_p", p}};
    };
    document["comparisons"].push_back({{"section", section},
                                       {"metric", "nll"},
                                       {"method", method},
                                       {"other", other},
                                       {"mean", mean},
                                       {"n", 1200},
                                       {"by_row", test("paired t", row_p)},
                                       {"by_task", test("clustered t", task_p)}});
  };
  row("base", 3), row("private-lag", 2), row("cluster-mean", 2.5), row("private-oracle", 1);
  pair("base", "private-lag", 1, 0.006, 0.6);
  pair("base", "cluster-mean", 0.5, 0.6, 0.6);
  pair("private-lag", "cluster-mean", -0.5, 0.3, 0.3);
  pair("base", "private-oracle", 2, 0.0, 0.0);
  pair("private-lag", "private-oracle", 1, 0.0, 0.0);
  pair("cluster-mean", "private-oracle", 1.5, 0.0, 0.0);
  return document;
}

TEST(RenderTextTable, RanksMethodsAndSaysWhoBeatsWhom) {
  const auto text = text_of(compared_results(), 80);
  EXPECT_EQ(text.substr(text.find("Who beats")),
            "Who beats whom by NLL: 6 pairs, 1,200 samples\n"
            "\n"
            "    method             mean ↓  beats  loses to\n"
            "──────────────────────────────────────────────\n"
            " 1  Private, oracle †   1.000    2–4         –\n"
            " 2  Private, LAG        2.000      4         1\n"
            " 3  Cluster, mean       2.500      –         1\n"
            " 4  Base                3.000      –      1, 2\n"
            "\n"
            "* best without an oracle; ▲ better, ▼ worse than the base model (the interval\n"
            "excludes zero).\n"
            "beats, loses to: methods by their number, where the 95 % interval for all pairs\n"
            "at once excludes 0 and the p-value is below 0.05 after Holm's correction for all\n"
            "pairs; by task for held-out instructions, else by sample. † knows each sample's\n"
            "task and competes with nobody.\n");
}

TEST(RenderTextTable, TellsMethodsApartByTaskOnHeldOutTasks) {
  const auto text = text_of(compared_results("instruction"), 80);
  EXPECT_THAT(text, HasSubstr(" 2  Private, LAG        2.000      –         1\n"));
}

TEST(RenderTextTable, CountsWhereAListWouldBeTooWide) {
  nlohmann::json document = {{"quiver_results", 1}, {"metrics", {{{"name", "acc"}, {"label", "Accuracy"}, {"better", "higher"}}}}};
  for (int i = 1; i <= 20; ++i) {
    document["summary"].push_back({{"section", "choice"}, {"method", format("m{}", i)}, {"metric", "acc"}, {"mean", 1 - 0.01 * i}});
    if (i % 2 == 1) continue;  // m1 beats every second method
    document["comparisons"].push_back({{"section", "choice"},
                                       {"metric", "acc"},
                                       {"method", format("m{}", i)},
                                       {"other", "m1"},
                                       {"mean", -0.2},
                                       {"by_row", {{"simultaneous_low", -0.3}, {"simultaneous_high", -0.1}, {"corrected_p", 0.01}}}});
  }
  const auto text = text_of(document, 60);
  EXPECT_THAT(text, HasSubstr(" 1  m1       0.990  10 of 19         –\n"));
  EXPECT_THAT(text, HasSubstr("20  m20      0.800         –         1\n"));
}

nlohmann::json warned_results() {
  auto document = compared_results();
  const auto warn = [&](const char* method, const char* kind, const char* text) {
    document["warnings"].push_back({{"kind", kind}, {"section", "train"}, {"method", method}, {"task", "quiz"}, {"text", text}});
  };
  warn("base", "near chance", "33.0 % of 100 right");
  warn("private-lag", "near chance", "34.0 % of 100 right");
  warn("base", "empty answers", "9 of <10> answers are empty");
  return document;
}

TEST(RenderTextTable, EndsWithTheWarnings) {
  const auto text = text_of(warned_results(), 80);
  EXPECT_EQ(text.substr(text.find("\nWarnings")),
            "\nWarnings\n"
            "- quiz: accuracy may be guessing (Base; Private, LAG)\n"
            "- quiz: Base: 9 of <10> answers are empty\n");
  auto document = warned_results();
  for (int i = 0; i < 20; ++i) document["warnings"].push_back({{"task", format("task{}", i)}, {"text", "something\x1B"}});
  const auto many = text_of(document, 80);
  EXPECT_THAT(many, HasSubstr("- task9: something\xEF\xBF\xBD\n- and 10 more\n"));
}

TEST(RenderReport, ShowsEveryPairAsAMatrix) {
  const auto page = html_of(warned_results());
  EXPECT_THAT(page, HasSubstr("Training tasks: NLL <span class=\"muted\">(6 pairs, by sample)</span>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"num better\" title=\"Private, LAG − Base: −1.0000 (n = 1200)\n"
                              "by sample: [−1.250, −0.750], all pairs at once [−1.500, −0.500]; paired t, p 0.0010, corrected 0.0060\n"
                              "by task: [−1.250, −0.750], all pairs at once [−3.000, +1.000]; clustered t, p 0.1000, corrected 0.6000\">"
                              "▲ −1.000</td>"));
  EXPECT_THAT(page, HasSubstr("▼ +1.000</td>"));
  EXPECT_THAT(page, HasSubstr("\">−0.500</td>"));  // Private, LAG against Cluster, mean: not told apart
  EXPECT_THAT(page, HasSubstr("<tr class=\"oracle\"><th scope=\"row\" class=\"first\">1\xC2\xA0 Private, oracle</th>"));
  EXPECT_EQ(times(page, "<td class=\"num better\" "), 4u);
  EXPECT_EQ(times(page, "<td class=\"num worse\" "), 4u);
  EXPECT_THAT(page, HasSubstr("<dt>Base</dt><dd>9 of &lt;10&gt; answers are empty</dd>"));
  EXPECT_THAT(page, HasSubstr("quiz: accuracy may be guessing <span class=\"muted\">(2 methods)</span>"));
  EXPECT_THAT(html_of(compared_results("instruction")), HasSubstr("(6 pairs, by task)"));
}

TEST(Pairs, AreTurnedRoundWithTheirIntervals) {
  const auto results = results::from_json(compared_results(), "the results");
  const Pairs pairs(results, "train", "nll");
  const auto found = pairs.find("private-lag", "base");
  EXPECT_EQ(found->method + " " + found->other, "private-lag base");
  EXPECT_EQ(found->mean, -1);
  EXPECT_EQ(found->by_row->low, -1.25);
  EXPECT_EQ(found->by_row->high, -0.75);
  EXPECT_EQ(found->by_task->simultaneous_low, -3);
  EXPECT_EQ(found->by_task->simultaneous_high, 1);
  EXPECT_EQ(pairs.find("base", "private-lag")->by_row->low, 0.75);
  EXPECT_FALSE(pairs.find("base", "base"));
}

TEST(Pairs, AreUnsureWhereTheIntervalForAllPairsIncludesZero) {
  auto results = results::from_json(compared_results(), "the results");
  const auto& metric = results.metric("nll");
  EXPECT_EQ(verdict(metric, results.comparisons[0]), "worse");  // the base has the higher NLL
  results.comparisons[0].by_row->simultaneous_low = -0.5;
  EXPECT_EQ(verdict(metric, results.comparisons[0]), "unsure");
}

TEST(Pairs, AreUnsureWhereNobodySaidWhichWayIsBetter) {
  auto document = compared_results();
  document.erase("metrics");
  const auto results = results::from_json(document, "the results");
  EXPECT_EQ(verdict(results.metric("nll"), results.comparisons[0]), "unsure");
  EXPECT_TRUE(ranking(results, "train", "nll").empty());
  EXPECT_EQ(text_of(document, 80).find("Who beats"), std::string::npos);
}

TEST(RangesText, JoinsNeighbours) {
  EXPECT_EQ(ranges_text({}), "");
  EXPECT_EQ(ranges_text({4}), "4");
  EXPECT_EQ(ranges_text({1, 2, 4, 5, 6, 9}), "1, 2, 4–6, 9");
}

TEST(PText, HasFourDecimals) {
  EXPECT_EQ(p_text(0.03125), "0.0312");
  EXPECT_EQ(p_text(0.00002), "< 0.0001");
  EXPECT_EQ(p_text(std::numeric_limits<double>::quiet_NaN()), "–");
}

}  // namespace
}  // namespace quiver::report
