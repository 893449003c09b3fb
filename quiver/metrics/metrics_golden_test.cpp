// Rouge-L, stems and accuracies against the Python originals: tests/golden/metrics/README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/metrics/choice.h"
#include "quiver/metrics/porter_stemmer.h"
#include "quiver/metrics/rouge.h"

namespace quiver::metrics {
namespace {

nlohmann::json golden(const std::string& name) {
  std::ifstream file("tests/golden/metrics/" + name);
  EXPECT_TRUE(file.good()) << "run the test in the root of the repository";
  return nlohmann::json::parse(file);
}

TEST(GoldenMetrics, StemsAreNltks) {
  const auto stems = golden("stems.json")["stems"];
  ASSERT_GT(stems.size(), 3000u);
  for (const auto& pair : stems) {
    const auto word = pair[0].get<std::string>();
    // rouge-score stems words of more than three characters only.
    EXPECT_EQ(word.size() > 3 ? porter_stem(word) : word, pair[1].get<std::string>()) << word;
  }
}

TEST(GoldenMetrics, RougeLIsRougeScores) {
  const auto cases = golden("rouge.json")["cases"];
  ASSERT_GT(cases.size(), 400u);
  for (const auto& item : cases) {
    const auto reference = item["reference"].get<std::string>();
    const auto prediction = item["prediction"].get<std::string>();
    const auto score = rouge_l(reference, prediction);
    EXPECT_NEAR(score.precision, item["precision"].get<double>(), 1e-9) << reference << " | " << prediction;
    EXPECT_NEAR(score.recall, item["recall"].get<double>(), 1e-9) << reference << " | " << prediction;
    EXPECT_NEAR(score.f_measure, item["f"].get<double>(), 1e-9) << reference << " | " << prediction;
  }
}

TEST(GoldenMetrics, ChoicesAreTheHarness) {
  const auto file = golden("choice.json");
  ASSERT_GT(file["cases"].size(), 80u);
  double hits = 0, normalized_hits = 0;
  for (const auto& item : file["cases"]) {
    const auto scores = item["scores"].get<std::vector<double>>();
    const auto choices = item["choices"].get<std::vector<std::string>>();
    const auto label = item["label"].get<std::int64_t>();
    const int hit = best_choice(scores) == label ? 1 : 0;
    const int normalized = best_choice_normalized(scores, choices) == label ? 1 : 0;
    EXPECT_EQ(hit, item["acc"].get<int>()) << item["task"];
    EXPECT_EQ(normalized, item["acc_norm"].get<int>()) << item["task"];
    hits += hit;
    normalized_hits += normalized;
  }
  const auto num_cases = static_cast<double>(file["cases"].size());
  EXPECT_NEAR(hits / num_cases, file["mean"]["acc"].get<double>(), 1e-12);
  EXPECT_NEAR(normalized_hits / num_cases, file["mean"]["acc_norm"].get<double>(), 1e-12);
}

}  // namespace
}  // namespace quiver::metrics
