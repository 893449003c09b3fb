#include "quiver/results/results.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

using nlohmann::json;

/// A document with every member that there is.
json whole_document() {
  return io::parse_json(R"({
    "quiver_results": 1, "created": "2026-01-02T03:04:05Z",
    "base": {"name": "tiny", "fingerprint": "ab", "content": "cd", "parameters": 361821120, "dtype": "bfloat16"},
    "machine": {"cores": "2", "cpu": "a processor"},
    "settings": {"evaluation": {"top_k": 4, "temperature": 0.5}, "rows per task, train": 0},
    "tasks": [{"name": "alpha", "kind": "train", "num_samples": 10, "group": "c0"}, {"name": "quiz", "kind": "choice", "num_samples": 30}],
    "methods": [{"name": "base", "label": "Base", "description": "no adapters", "oracle": false},
                {"name": "private-oracle", "label": "Private, oracle", "description": "own adapter", "oracle": true}],
    "metrics": [{"name": "nll", "label": "NLL of the target", "better": "lower", "unit": "nats/token"},
                {"name": "rouge_l", "label": "Rouge-L", "better": "higher", "unit": ""},
                {"name": "words", "label": "Words", "better": "", "unit": ""}],
    "summary": [{"section": "train", "method": "base", "metric": "nll", "mean": 2.5, "stderr": null, "n": 1, "difference": null,
                 "difference_by_task": null, "recovered": null},
                {"section": "train", "method": "private-oracle", "metric": "nll", "mean": 1.5, "stderr": 0.25, "n": 22,
                 "difference": {"mean": -1.0, "low": -1.5, "high": -0.5, "n": 22},
                 "difference_by_task": {"mean": -1.0, "low": null, "high": null, "n": 22}, "recovered": 0.75}],
    "comparisons": [{"section": "train", "metric": "nll", "method": "base", "other": "private-oracle", "mean": 1.0, "n": 22,
                     "by_row": {"low": 0.5, "high": 1.5, "simultaneous_low": 0.25, "simultaneous_high": 1.75, "test": "paired t", "p": 0.001,
                                "corrected_p": 0.002},
                     "by_task": {"low": null, "high": null, "simultaneous_low": null, "simultaneous_high": null, "test": "clustered t",
                                 "p": 1.0, "corrected_p": 1.0}},
                    {"section": "train", "metric": "words", "method": "base", "other": "private-oracle", "mean": 0.0, "n": 1,
                     "by_row": null, "by_task": null}],
    "warnings": [{"kind": "empty answers", "section": "train", "method": "base", "task": "alpha", "text": "9 of 10 answers are empty"}],
    "per_task": [{"task": "alpha", "method": "base", "metric": "nll", "mean": 2.25, "stderr": 0.125, "n": 10}],
    "training": [{"adapter": "alpha", "kind": "private", "steps": [1, 2, 3], "loss": [3.5, null, 1.25], "tokens": 12000, "rows": 90,
                  "seconds": 75.5, "tokens_per_second": 158.75},
                 {"adapter": "beta", "kind": "cluster", "steps": [], "loss": [], "tokens": null, "rows": null, "seconds": null,
                  "tokens_per_second": null}],
    "clusters": {"adapters": ["alpha", "beta"], "labels": [1, 0], "similarity": [[1.0, 0.25], [0.25, null]]},
    "routing": [{"library": "private", "method": "private-arrow", "task": "alpha", "adapters": ["alpha", "beta"],
                 "layers": [{"layer": "layers.0", "share": [0.75, 0.25]}, {"layer": "layers.1", "share": [0.5, 0.5]}]},
                {"library": "private", "method": "private-arrow", "task": "beta", "adapters": ["alpha", "beta"],
                 "layers": [{"layer": "layers.0", "share": [0.125, 0.875]}, {"layer": "layers.1", "share": [0.5, 0.5]}]},
                {"library": "cluster", "method": "cluster-lag", "task": "alpha", "adapters": ["c0"],
                 "layers": [{"layer": "layers.0", "share": [1.0]}]}],
    "samples": [{"section": "train", "method": "base", "task": "alpha", "id": "0a", "nll": 2.125, "num_tokens": 7, "rouge_l": 0.5,
                 "prediction": "", "targets": ["the right answer", "another"]},
                {"section": "train", "method": "base", "task": "alpha", "id": "0b", "nll": null, "num_tokens": 3},
                {"section": "choice", "method": "base", "task": "quiz", "id": "1", "words": 2.0, "log_probs": [-1.5, -0.25], "label": 1}]
  })",
                        "the document");
}

Results parsed(const json& document) { return from_json(document, "the results"); }

TEST(ToJson, GivesBackTheDocumentThatWasRead) { EXPECT_EQ(to_json(parsed(whole_document())), whole_document()); }

TEST(ToJson, LeavesOutWhatIsNotThere) {
  const auto document = to_json(Results());
  EXPECT_FALSE(document.contains("clusters"));
  for (const char* member :
       {"tasks", "methods", "metrics", "summary", "comparisons", "warnings", "per_task", "training", "routing", "samples"})
    EXPECT_EQ(document.at(member), json::array()) << member;
  EXPECT_EQ(document.at("settings"), json::object());
  EXPECT_EQ(to_json(parsed(document)), document);
}

TEST(ToJson, WritesWholeNumbersWithoutAPointAndKeepsAllDigitsOfOthers) {
  auto document = whole_document();
  document["training"][0]["seconds"] = 0.1 + 0.2;
  const auto training = to_json(parsed(document)).at("training").at(0);
  EXPECT_EQ(training.at("steps").dump(), "[1,2,3]");
  EXPECT_EQ(training.at("tokens").dump(), "12000");
  EXPECT_EQ(training.at("seconds").dump(), "0.30000000000000004");
}

TEST(FromJson, GivesTheValuesOfEachMember) {
  const auto results = parsed(whole_document());
  EXPECT_EQ(results.base.parameters, 361821120);
  EXPECT_EQ(results.base.content, "cd");
  EXPECT_EQ(results.machine, (std::vector<std::pair<std::string, std::string>>{{"cores", "2"}, {"cpu", "a processor"}}));
  EXPECT_EQ(results.find_task("alpha")->group, "c0");
  EXPECT_EQ(results.find_task("gamma"), nullptr);
  EXPECT_TRUE(results.method("private-oracle").is_oracle);
  EXPECT_TRUE(std::isnan(results.summary[0].standard_error));
  const auto* row = results.find_summary("train", "private-oracle", "nll");
  EXPECT_EQ(row->difference->low, -1.5);
  EXPECT_TRUE(std::isnan(row->difference_by_task->low));
  EXPECT_EQ(row->recovered, 0.75);
  EXPECT_EQ(results.comparisons[0].by_row->simultaneous_low, 0.25);
  EXPECT_TRUE(results.comparisons[0].by_row->is_told_apart());
  EXPECT_TRUE(std::isnan(results.comparisons[0].by_task->low));
  EXPECT_FALSE(results.comparisons[0].by_task->is_told_apart());
  EXPECT_FALSE(results.comparisons[1].by_row);
  EXPECT_EQ(results.warnings[0].text, "9 of 10 answers are empty");
  ASSERT_EQ(results.routing.size(), 2u);  // a library and method each
  EXPECT_EQ(results.routing[0].tasks[1].layers[0].share[1], 0.875);
  EXPECT_EQ(results.clusters.similarity[1], 0.25);
  EXPECT_EQ(results.samples[0].prediction, "");
  EXPECT_FALSE(results.samples[1].prediction);
  EXPECT_TRUE(std::isnan(results.samples[1].metrics[0].second));
  EXPECT_EQ(results.samples[2].log_probs, (std::vector{-1.5, -0.25}));
}

TEST(FromJson, ReadsWhatEarlierVersionsWrote) {
  auto document = whole_document();
  for (const auto& [old, now] :
       {std::pair("Float", "float32"), {"BFloat16", "bfloat16"}, {"Half", "float16"}, {"Double", "float64"}, {"int7", "int7"}}) {
    document["base"]["dtype"] = old;
    EXPECT_EQ(parsed(document).base.dtype, now);
  }
  for (auto& method : document["methods"]) method.erase("oracle");  // the name tells
  for (auto& row : document["summary"]) row.erase("difference_by_task");
  for (auto& entry : document["routing"]) entry.erase("method");
  document.erase("comparisons");
  document.erase("warnings");
  document["tasks"][0]["group"] = 3;
  document["samples"][0]["id"] = 12;
  document["command"] = document["samples"][0]["input"] = "nobody knows this";
  const auto results = parsed(document);
  EXPECT_TRUE(results.method("private-oracle").is_oracle);
  EXPECT_FALSE(results.method("base").is_oracle);
  EXPECT_FALSE(results.summary[1].difference_by_task);
  EXPECT_TRUE(results.comparisons.empty());
  EXPECT_TRUE(results.warnings.empty());
  EXPECT_EQ(results.routing[0].method, "");
  EXPECT_EQ(results.tasks[0].group, "3");
  EXPECT_EQ(results.samples[0].id, "12");
}

TEST(FromJson, TakesMissingAndNullMembers) {
  const auto whole = whole_document();
  for (const auto& [member, value] : whole.items()) {
    if (member == "quiver_results") continue;
    auto document = whole;
    document[member] = nullptr;
    const auto nothing = to_json(parsed(document));
    document.erase(member);
    auto missing = to_json(parsed(document));
    if (member == "settings") missing["settings"] = nullptr;  // whatever it is, it is kept
    EXPECT_EQ(nothing, missing) << member;
  }
}

TEST(FromJson, RefusesOtherVersions) {
  auto results = whole_document();
  results["quiver_results"] = 2;
  EXPECT_ERROR(parsed(results), ErrorKind::kUnsupported, "holds results of version 2; this program reads version 1");
  EXPECT_ERROR(parsed(json{{"results", {}}}), ErrorKind::kBadFormat, "not a Quiver results file");
}

TEST(FromJson, RefusesPartsThatDoNotFitTogether) {
  auto results = whole_document();
  results["training"][0]["loss"] = {1, 2};
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "training[0]: \"loss\" has 2 entries for 3 steps");
  results = whole_document();
  results["clusters"]["similarity"][1] = {1};
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "similarity[1]: the row has 1 entries for 2 adapters");
  results = whole_document();
  results["routing"][1]["layers"].erase(0);
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "write the same layers");
  results = whole_document();
  results["routing"][1]["adapters"] = {"beta", "alpha"};
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "in another order");
  results = whole_document();
  results["summary"][0]["mean"] = "high";
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "summary[0]");
  results = whole_document();
  results["metrics"][0]["better"] = "sideways";
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "'sideways'");
  results = whole_document();
  results["comparisons"][0]["by_row"]["corrected_p"] = 1.5;
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "comparisons[0].by_row holds the p-value 1.5; expected one from 0 to 1");
  results = whole_document();
  results["comparisons"][0].erase("other");
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "comparisons[0]");
}

TEST(FromJson, RefusesNumbersThatChartsCannotComputeWith) {
  const auto refusal = [](const char* place, double value) {
    auto results = whole_document();
    results[json::json_pointer(place)] = value;
    EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "is 1e+101; at most 1e+100 in size is read");
  };
  for (const char* place : {"/summary/0/mean", "/summary/0/recovered", "/training/0/loss/0", "/training/0/seconds", "/per_task/0/mean",
                            "/comparisons/0/mean"}) {
    refusal(place, 1e101);
  }
  auto results = whole_document();
  results["clusters"]["labels"][0] = 2e9;
  EXPECT_ERROR(parsed(results), ErrorKind::kBadFormat, "labels holds 2000000000; expected whole numbers up to 1000000000");
}

TEST(FromJson, DescribesByNameWhatNobodyDescribed) {
  auto document = whole_document();
  document.erase("methods");
  document.erase("metrics");
  document["comparisons"][0]["other"] = "another";
  const auto results = parsed(document);
  EXPECT_EQ(results.method("another").label, "another");
  EXPECT_EQ(results.method("private-oracle").label, "private-oracle");
  EXPECT_TRUE(results.method("private-oracle").is_oracle);
  EXPECT_EQ(results.metric("nll").better, Better::kUnknown);
}

}  // namespace
}  // namespace quiver::results
