#include "quiver/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/report/charts.h"
#include "quiver/report/format.h"
#include "quiver/report/page.h"
#include "quiver/report/tables.h"
#include "quiver/report/text_table.h"
#include "quiver/report/view.h"
#include "quiver/testing/message_of.h"

namespace quiver::report {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json sample_results() {
  return io::parse_json(R"({
    "quiver_results": 1, "created": "2025-01-02T03:04:05Z",
    "base": {"name": "tiny-base", "fingerprint": "sha256:ab", "parameters": 361821120, "dtype": "bfloat16"},
    "machine": {"cpu": "a processor"}, "settings": {"train": {"rank": 4, "targets": ["q_proj", "v_proj"]}, "seed": 7},
    "tasks": [{"name": "alpha", "kind": "train", "num_samples": 10, "group": 0},
              {"name": "beta", "kind": "train", "num_samples": 12, "group": 1},
              {"name": "quiz", "kind": "choice", "num_samples": 30}],
    "methods": [{"name": "base", "label": "Base model", "description": "frozen"},
                {"name": "private-arrow", "label": "Private, Arrow", "description": "routed"},
                {"name": "private-oracle", "label": "Private, oracle", "description": "own adapter"}],
    "metrics": [{"name": "nll", "label": "NLL of the target", "better": "lower", "unit": "nats/token"},
                {"name": "acc", "label": "Accuracy", "better": "higher", "unit": ""}],
    "summary": [
      {"section": "train", "method": "base", "metric": "nll", "mean": 2.5, "stderr": 0.1, "n": 22, "difference": null,
       "recovered": null},
      {"section": "train", "method": "private-arrow", "metric": "nll", "mean": 1.75, "stderr": 0.05, "n": 22,
       "difference": {"mean": -0.75, "low": -0.8125, "high": -0.6875}, "recovered": 0.71},
      {"section": "train", "method": "private-oracle", "metric": "nll", "mean": 1.5, "stderr": 0.04, "n": 22,
       "difference": {"mean": -1.0, "low": -1.1, "high": -0.9}, "recovered": null},
      {"section": "choice", "method": "base", "metric": "acc", "mean": 0.5, "stderr": 0.02, "n": 30,
       "difference": null, "recovered": null},
      {"section": "choice", "method": "private-arrow", "metric": "acc", "mean": 0.51, "stderr": 0.02, "n": 30,
       "difference": {"mean": 0.01, "low": -0.03, "high": 0.05}, "recovered": null}],
    "per_task": [{"task": "alpha", "method": "base", "metric": "nll", "mean": 2.25, "stderr": 0.2, "n": 10},
                 {"task": "alpha", "method": "private-arrow", "metric": "nll", "mean": 1.125, "stderr": 0.2, "n": 10}],
    "training": [{"adapter": "alpha", "kind": "private", "steps": [1, 2, 3], "loss": [3, 2, 1], "tokens": 12000,
                  "rows": 90, "seconds": 75, "tokens_per_second": 160}],
    "clusters": {"adapters": ["alpha", "beta"], "labels": [1, 0], "similarity": [[1, 0.25], [0.25, 1]]},
    "routing": [{"library": "private", "task": "alpha", "adapters": ["alpha", "beta"],
                 "layers": [{"layer": "layers.0", "share": [0.75, 0.25]}, {"layer": "layers.1", "share": [0.5, 0.5]}]},
                {"library": "private", "task": "quiz", "adapters": ["alpha", "beta"],
                 "layers": [{"layer": "layers.0", "share": [0.1, 0.9]}, {"layer": "layers.1", "share": [0.2, 0.8]}]}],
    "samples": [{"task": "alpha", "id": "0a", "method": "base", "nll": 2.125, "prediction": "a wrong answer",
                 "targets": ["the right answer"]},
                {"task": "alpha", "id": "0a", "method": "private-arrow", "nll": 0.5, "prediction": "the right answer",
                 "targets": ["the right answer"]}]
  })",
                        "sample");
}

Results parsed(const json& document) { return results::from_json(document, "the results"); }

std::string page_of(const json& document) { return render_report(std::vector{parsed(document)}); }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

template <typename Function>
void expect_refusal(ErrorKind kind, const char* part, Function function) {
  EXPECT_ERROR(function(), kind, part);
}

/// Held-out tasks on which one method has the lowest NLL and ruins the answers, and another has better answers than the base.
json held_out_results() {
  return io::parse_json(R"({
    "quiver_results": 1,
    "methods": [{"name": "base", "label": "Base"}, {"name": "private-lag", "label": "Private, LAG"}, {"name": "cluster-mean", "label": "Cluster, mean"}],
    "metrics": [{"name": "nll", "label": "NLL", "better": "lower"}, {"name": "rouge_l", "label": "Rouge-L", "better": "higher"}],
    "summary": [
      {"section": "instruction", "method": "base", "metric": "nll", "mean": 3.0, "n": 9},
      {"section": "instruction", "method": "private-lag", "metric": "nll", "mean": 1.0, "n": 9,
       "difference": {"mean": -2.0, "low": -2.1, "high": -1.9}, "difference_by_task": {"mean": -2.0, "low": -2.5, "high": -1.5}},
      {"section": "instruction", "method": "cluster-mean", "metric": "nll", "mean": 2.0, "n": 9,
       "difference": {"mean": -1.0, "low": -1.1, "high": -0.9}, "difference_by_task": {"mean": -1.0, "low": -1.5, "high": -0.5}},
      {"section": "instruction", "method": "base", "metric": "rouge_l", "mean": 0.2, "n": 9},
      {"section": "instruction", "method": "private-lag", "metric": "rouge_l", "mean": 0, "n": 9,
       "difference": {"mean": -0.2, "low": -0.3, "high": -0.1}, "difference_by_task": {"mean": -0.2, "low": -0.5, "high": 0.1}},
      {"section": "instruction", "method": "cluster-mean", "metric": "rouge_l", "mean": 0.25, "n": 9,
       "difference": {"mean": 0.05, "low": 0.01, "high": 0.09}, "difference_by_task": {"mean": 0.05, "low": -0.01, "high": 0.11}}]})",
                        "the sample");
}

TEST(Summary, NeverCallsAMethodBestWhoseAnswersAreEmpty) {
  const auto text = summary_paragraph(parsed(held_out_results()));
  EXPECT_THAT(text, HasSubstr("<strong>Cluster, mean</strong> does best without an oracle: NLL 2.000"));
  EXPECT_THAT(text, HasSubstr("; its answers have Rouge-L 0.250, a difference of +0.050 to the base model that may be chance"));
  EXPECT_THAT(text, HasSubstr("<strong>Private, LAG</strong> has a better NLL, but worse answers than the base model."));
}

TEST(View, TakesTheIntervalOfOtherTasksForHeldOutTasksAlone) {
  auto document = held_out_results();
  auto results = parsed(document);
  EXPECT_EQ(difference_of(*results.find_summary("instruction", "cluster-mean", "nll"))->low, -1.5);
  for (auto& row : document["summary"]) row["section"] = "train";
  results = parsed(document);
  EXPECT_EQ(difference_of(*results.find_summary("train", "cluster-mean", "nll"))->low, -1.1);
}

TEST(RenderReport, SaysInWordsWhatTheFiguresSay) {
  const auto page = page_of(sample_results());
  EXPECT_THAT(page, HasSubstr("On the 2 training tasks, <strong>Private, Arrow</strong> does best without an oracle: NLL of the target "
                              "1.750\xC2\xA0\xC2\xB1\xC2\xA0"
                              "0.050 nats/token, 0.750 lower than the base model (95\xC2\xA0% interval \xE2\x88\x92"
                              "0.812 to \xE2\x88\x92"
                              "0.688)"));
  EXPECT_THAT(
      page,
      HasSubstr("<strong>Private, Arrow</strong> recovers <strong>71 %</strong> of the way from the mean of its adapters to the oracle."));
  EXPECT_THAT(page, HasSubstr("a difference of +0.010 to the base model that may be chance (95\xC2\xA0% interval \xE2\x88\x92"
                              "0.030 to +0.050)"));
}

TEST(RenderReport, ShowsEveryPartWithItsValues) {
  const auto page = page_of(sample_results());
  EXPECT_THAT(page, HasSubstr("<title>Quiver report: tiny-base</title>"));
  EXPECT_THAT(page,
              HasSubstr("<td class=\"num best\"><div class=\"mean\" title=\"n = 22\">1.750"));  // not the
                                                                                                // oracle's 1.5
  EXPECT_THAT(page, HasSubstr("<div class=\"delta better\"><b>\xE2\x96\xB2 \xE2\x88\x92"
                              "0.750</b>"));
  EXPECT_THAT(page, HasSubstr("<div class=\"delta unsure\"><b>+0.010</b>"));
  EXPECT_THAT(page, HasSubstr("Private, Arrow: \xE2\x88\x92"
                              "0.7500 NLL of the target against the base model"));
  EXPECT_THAT(page, HasSubstr("private (1 adapter)"));
  EXPECT_THAT(page, HasSubstr("Mean across clusters: <b>0.250</b>"));
  EXPECT_THAT(page, HasSubstr("alpha, alpha: 62.5 %"));  // averaged over two layers
  EXPECT_THAT(page, HasSubstr("It gets <b>62.5 %</b> on average, where evenly spread weight would be 50.0 %"));
  EXPECT_THAT(page, HasSubstr("<b>1 of 1</b> tasks"));
  EXPECT_THAT(page, HasSubstr("data-v=\"1.125\""));
  EXPECT_THAT(page, HasSubstr("the right answer"));
  EXPECT_THAT(page, HasSubstr("<dt>rank</dt><dd>4</dd>"));
  EXPECT_THAT(page, HasSubstr("q_proj, v_proj"));
  EXPECT_THAT(page, HasSubstr("361,821,120"));
  EXPECT_THAT(page, HasSubstr("1 min 15 s"));
}

TEST(RenderReport, NeedsNothingFromOutside) {
  const auto page = page_of(sample_results());
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  EXPECT_EQ(count(page, "src="), 0u);
  EXPECT_EQ(count(page, "<link"), 0u);
  EXPECT_EQ(count(page, "url("), 0u);
  EXPECT_EQ(count(page, "@import"), 0u);
  EXPECT_EQ(count(page, "http"), count(page, "http://www.w3.org/2000/svg") + count(page, "http-equiv"));
}

TEST(RenderReport, IsDeterministic) { EXPECT_EQ(page_of(sample_results()), page_of(sample_results())); }

TEST(RenderReport, EscapesEveryTextOfTheDocument) {
  const std::string attack = "</script><script>alert(1)</script>\"'&<!--";
  auto results = sample_results();
  // Every string value, in every part: names must stay consistent, so all get the same tail.
  const std::function<void(json&, const std::string&)> poison = [&](json& value, const std::string& key) {
    if (value.is_string() && key != "kind" && key != "section" && key != "better") {
      value = value.get<std::string>() + attack;
    }
    if (value.is_object()) {
      for (auto& [name, item] : value.items()) poison(item, name);
    } else if (value.is_array()) {
      for (auto& item : value) poison(item, key);
    }
  };
  poison(results, "");
  const auto page = page_of(results);
  const auto clean = page_of(sample_results());
  EXPECT_EQ(count(page, "alert(1)</script>"), 0u);
  EXPECT_EQ(count(page, "<script"), count(clean, "<script"));
  EXPECT_EQ(count(page, "</script>"), count(clean, "</script>"));
  EXPECT_EQ(count(page, "<!--"), 0u);
  EXPECT_THAT(page, HasSubstr("&lt;/script&gt;&lt;script&gt;alert(1)"));
  EXPECT_THAT(page,
              HasSubstr("\\u003c/script\\u003e"));  // adapter names in the data of the layer view
}

TEST(RenderReport, TakesResultsWithoutAnything) {
  const auto page = page_of(json{{"quiver_results", 1}});
  EXPECT_THAT(page, HasSubstr("These results hold no summary."));
  EXPECT_THAT(page, HasSubstr("<title>Quiver report</title>"));
  EXPECT_EQ(count(page, "<section"), 0u);
}

TEST(RenderReport, TakesEmptyAndMissingParts) {
  for (const char* part : {"base", "machine", "settings", "tasks", "methods", "metrics", "summary", "per_task", "training", "clusters",
                           "routing", "samples", "comparisons", "warnings"}) {
    auto missing = sample_results();
    missing.erase(part);
    EXPECT_NO_THROW(page_of(missing)) << part;
    auto null = sample_results();
    null[part] = nullptr;
    EXPECT_NO_THROW(page_of(null)) << part;
    auto empty = sample_results();
    if (empty[part].is_array()) empty[part] = json::array();
    EXPECT_NO_THROW(page_of(empty)) << part;
  }
}

TEST(RenderReport, DrawsWhatIsDegenerate) {
  auto results = sample_results();
  results["training"][0]["loss"] = {nullptr, 2, 2};
  results["clusters"] = {{"adapters", {"alpha"}}, {"labels", {0}}, {"similarity", {{1}}}};
  results["summary"][1]["stderr"] = nullptr;
  results["summary"][1]["difference"] = {{"mean", 0}, {"low", nullptr}, {"high", nullptr}};
  results["summary"][2]["difference"] = {{"mean", 0}, {"low", 0}, {"high", 0}};
  results["routing"][0]["layers"] = json::array();
  results["routing"][1]["layers"] = json::array();
  const auto page = page_of(results);
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("\"inf")));
}

TEST(RenderReport, PutsSeveralResultsSideBySide) {
  auto other = sample_results();
  other["base"]["name"] = "other-base";
  other["settings"]["train"]["rank"] = 16;
  other["summary"][1]["mean"] = 1.375;
  const auto page = render_report(std::vector{parsed(sample_results()), parsed(other)});
  EXPECT_THAT(page, HasSubstr("Quiver report: tiny-base, other-base"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\" class=\"first\">settings.train.rank</th><td class=\"num\">4</td>"
                              "<td class=\"num\">16</td>"));
  EXPECT_THAT(page, Not(HasSubstr("settings.seed")));  // the same in both
  EXPECT_THAT(page, HasSubstr("<td class=\"num best\">1.375 "));
  EXPECT_EQ(count(page, "id=\"run1-results\""), 1u);
  EXPECT_EQ(count(page, "id=\"run2-results\""), 1u);
  EXPECT_EQ(count(page, "id=\"run2-routing0-data\""), 1u);
}

TEST(RenderReport, CutsLongTextsAndShowsAHandfulOfSamples) {
  auto results = sample_results();
  results["samples"][0]["prediction"] = std::string(5000, 'x');
  for (int i = 0; i < 20; ++i) {
    results["tasks"].push_back({{"name", format("extra{:02}", i)}, {"kind", "train"}, {"num_samples", 1}});
    results["samples"].push_back({{"task", format("extra{:02}", i)}, {"id", "1"}, {"method", "base"}, {"prediction", "p"}});
  }
  const auto page = render_report(std::vector{parsed(results)}, {.title = "My title", .samples_per_section = 2});
  EXPECT_EQ(count(page, "<article"), 2u);
  EXPECT_THAT(page, HasSubstr("<h1>My title</h1>"));
  EXPECT_THAT(page, HasSubstr(std::string(600, 'x') + "\xE2\x80\xA6"));
  EXPECT_THAT(page, Not(HasSubstr(std::string(601, 'x'))));
}

TEST(RenderReport, RefusesNoResults) {
  expect_refusal(ErrorKind::kUsage, "at least one", [] { render_report({}); });
}

TEST(BestOf, IsNothingWhereNobodySaidWhichWayIsBetter) {
  auto document = sample_results();
  document.erase("metrics");
  EXPECT_EQ(best_of(parsed(document), "train", "nll"), nullptr);
}

TEST(View, OrdersSectionsAndMetrics) {
  const auto results = parsed(sample_results());
  EXPECT_THAT(sections_of(results), ::testing::ElementsAre("train", "choice"));
  EXPECT_THAT(metrics_of(results, "choice"), ::testing::ElementsAre("acc"));
  EXPECT_EQ(best_of(results, "train", "nll")->method, "private-arrow");
}

TEST(RenderTextTable, AlignsItsColumnsWithinTheWidth) {
  const auto text = render_text_table(parsed(sample_results()), 80);
  EXPECT_EQ(text,
            "Training tasks (2)\n\n"
            "method           NLL of the target \xE2\x86\x93       against base [95 %]    recovers\n"
            "──────────────────────────────────────────────────────────────────────────\n"
            "Base model             2.500 ± 0.100\n"
            "Private, Arrow         1.750 ± 0.050*  −0.750 [−0.812, −0.688] ▲      71 %\n"
            "Private, oracle        1.500 ± 0.040   −1.000 [−1.100, −0.900] ▲\n"
            "\n"
            "Multiple choice (1)\n\n"
            "method             Accuracy ↑       against base [95 %]\n"
            "─────────────────────────────────────────────────────────\n"
            "Base model      0.500 ± 0.020\n"
            "Private, Arrow  0.510 ± 0.020*  +0.010 [−0.030, +0.050]\n"
            "\n* best without an oracle; ▲ better, ▼ worse than the base model (the interval\nexcludes zero).\n");
}

TEST(RenderTextTable, BeginsWithAnOverviewWhereThereAreHeldOutTasks) {
  auto document = held_out_results();
  document["methods"][0]["description"] = "the model without adapters";
  document["methods"][1]["description"] = "over the private adapters: the one adapter with the largest update";
  document["methods"][2]["description"] = "over the cluster adapters: factors averaged";
  document["summary"].push_back({{"section", "train"}, {"method", "base"}, {"metric", "nll"}, {"mean", 3.5}});
  document["summary"].push_back({{"section", "train"},
                                 {"method", "private-lag"},
                                 {"metric", "nll"},
                                 {"mean", 1.5},
                                 {"recovered", 0.625},
                                 {"difference", {{"mean", -2.0}, {"low", -2.5}, {"high", -1.5}}}});
  const auto text = render_text_table(parsed(document), 120);
  EXPECT_EQ(text.substr(0, text.find("\n\nTraining") + 1),
            "On instruction tasks that no adapter has seen, Cluster, mean answers best, by what may be chance: Rouge-L 0.250, +0.050\n"
            "against the base, 95 % interval by task [−0.010, +0.110].\n"
            "\n"
            "               tasks never seen                               own tasks\n"
            "method         Rouge-L ↑         from base [95 %]    NLL ↓    NLL ↓    recovers\n"
            "───────────────────────────────────────────────────────────────────────────────\n"
            "Base               0.200                             3.000    3.500\n"
            "Private, LAG       0.000  −0.200 [−0.500, +0.100]    1.000 ▲  1.500 ▲      62 %\n"
            "Cluster, mean      0.250  +0.050 [−0.010, +0.110]    2.000 ▲      –\n"
            "\n"
            "▲ better, ▼ worse than the base: the 95 % interval excludes 0. Tasks never seen: held-out instructions, intervals by\n"
            "task; own tasks: those trained on; choice: multiple choice; recovers: of the way from the mean of the adapters to the\n"
            "oracle.\n"
            "\n"
            "Base             the model without adapters\n"
            "LAG              the one adapter with the largest update\n"
            "mean             factors averaged\n");
  for (const int width : {60, 80, 100}) {
    const auto narrow = render_text_table(parsed(document), width);
    for (std::size_t begin = 0; begin < narrow.size();) {
      const auto end = narrow.find('\n', begin);
      EXPECT_LE(display_width(narrow.substr(begin, end - begin)), width) << narrow;
      begin = end + 1;
    }
  }
}

TEST(RenderTextTable, KeepsControlCharactersFromTheTerminal) {
  auto results = sample_results();
  results["methods"][0]["label"] = "evil\x1B[2J\nname";
  const auto text = render_text_table(parsed(results), 80);
  EXPECT_THAT(text, Not(HasSubstr("\x1B")));
  EXPECT_THAT(text, HasSubstr("evil\xEF\xBF\xBD[2J name"));
}

TEST(RenderTextTable, AlignsWideCharacters) {
  auto results = sample_results();
  results["methods"][0]["label"] = "\xE5\x9F\xBA\xE7\xA1\x80";  // two characters, four columns
  EXPECT_THAT(render_text_table(parsed(results), 80), HasSubstr("\xE5\x9F\xBA\xE7\xA1\x80                   2.500 ± 0.100\n"));
}

TEST(RenderTextTable, RefusesATooNarrowTerminalAndTakesNoSummary) {
  expect_refusal(ErrorKind::kUsage, "60 columns", [] { render_text_table(parsed(sample_results()), 40); });
  EXPECT_EQ(render_text_table(parsed(json{{"quiver_results", 1}}), 80), "These results hold no summary.\n");
}

TEST(RenderReport, DrawsOneRoutingMapPerMethod) {
  auto results = sample_results();
  auto more = results["routing"];
  for (auto& entry : results["routing"]) entry["method"] = "private-arrow";
  for (auto& entry : more) {
    entry["method"] = "private-lag";
    results["routing"].push_back(entry);
  }
  const auto page = page_of(results);
  EXPECT_THAT(page, HasSubstr("<h3>Private, Arrow: 2 adapters</h3>"));
  EXPECT_THAT(page, HasSubstr("<h3>Library \xE2\x80\x9Cprivate\xE2\x80\x9D: 2 adapters</h3>"));  // a method that the results do not list
  EXPECT_EQ(count(page, "<b>1 of 1</b> tasks"), 2u);
}

}  // namespace
}  // namespace quiver::report
