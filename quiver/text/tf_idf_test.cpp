#include "quiver/text/tf_idf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

void expect_rows(const nlohmann::json& expected, const TfIdf& model, const nlohmann::json& texts) {
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto row = tf_idf_vector(model, texts[i].get<std::string>());
    ASSERT_EQ(row.indices.size(), expected[i].size()) << texts[i];
    for (std::size_t j = 0; j < expected[i].size(); ++j) {
      EXPECT_EQ(row.indices[j], expected[i][j][0].get<std::int64_t>()) << texts[i];
      EXPECT_NEAR(row.values[j], expected[i][j][1].get<double>(), 1e-14) << texts[i];
    }
  }
}

TEST(TfIdfGolden, IsThatOfScikitLearn) {
  const auto golden = io::read_json_file("tests/golden/tf_idf/cases.json");
  const auto texts = golden.at("texts").get<std::vector<std::string>>();
  const auto unseen = golden.at("unseen").get<std::vector<std::string>>();
  for (std::size_t i = 0; i < golden.at("words").size(); ++i) {
    const auto& text = i < texts.size() ? texts[i] : unseen[i - texts.size()];
    EXPECT_EQ(tf_idf_words(text), golden.at("words")[i].get<std::vector<std::string>>()) << text;
  }
  const auto model = fit_tf_idf(texts);
  EXPECT_EQ(model.terms, golden.at("terms").get<std::vector<std::string>>());
  const auto idf = golden.at("idf").get<std::vector<double>>();
  ASSERT_EQ(model.idf.size(), idf.size());
  for (std::size_t i = 0; i < idf.size(); ++i) EXPECT_NEAR(model.idf[i], idf[i], 1e-14) << model.terms[i];
  expect_rows(golden.at("rows"), model, golden.at("texts"));
  expect_rows(golden.at("unseen_rows"), model, golden.at("unseen"));
  for (std::size_t i = 0; i < unseen.size(); ++i) {
    SCOPED_TRACE(i);
    for (std::size_t j = 0; j < texts.size(); ++j) {
      SCOPED_TRACE(j);
      EXPECT_NEAR(cosine(tf_idf_vector(model, unseen[i]), tf_idf_vector(model, texts[j])), golden.at("cosines")[i][j].get<double>(), 1e-14);
    }
  }
}

TEST(TfIdf, IsItsDefinitionOnTwoTexts) {
  const std::vector<std::string> texts = {"red red blue", "blue green"};
  const auto model = fit_tf_idf(texts);
  EXPECT_THAT(model.terms, ElementsAre("blue", "green", "red"));
  const double common = 1, rare = std::log(1.5) + 1;
  EXPECT_EQ(model.idf[0], common);
  EXPECT_EQ(model.idf[1], rare);
  const auto row = tf_idf_vector(model, texts[0]);
  const double length = std::sqrt(common * common + 4 * rare * rare);
  EXPECT_THAT(row.indices, ElementsAre(0, 2));
  EXPECT_NEAR(row.values[0], common / length, 1e-15);
  EXPECT_NEAR(row.values[1], 2 * rare / length, 1e-15);
}

TEST(TfIdf, CosineIsScaleFreeAndZeroWithoutEntries) {
  const SparseVector a{{0, 2, 5}, {1, 2, 2}}, b{{2, 3, 5}, {3, 9, 4}}, none;
  EXPECT_NEAR(cosine(a, b), (2 * 3 + 2 * 4) / (3 * std::sqrt(9.0 + 81 + 16)), 1e-15);
  EXPECT_NEAR(cosine(b, a), cosine(a, b), 1e-15);
  EXPECT_EQ(cosine(a, none), 0);
  EXPECT_EQ(cosine(none, none), 0);
}

TEST(TfIdf, SeparatesWordsAtBytesThatAreNotUtf8) {
  EXPECT_THAT(tf_idf_words("ab\xFF\xC3"
                           "cd \xE2\x82"),
              ElementsAre("ab", "cd"));
  EXPECT_THAT(tf_idf_words("a"), IsEmpty());
}

TEST(TfIdf, RefusesTextsWithoutWords) {
  for (const auto& texts : {std::vector<std::string>{}, std::vector<std::string>{"a ?", ""}}) {
    SCOPED_TRACE(texts.size());
    EXPECT_ERROR(fit_tf_idf(texts), ErrorKind::kUsage, "has a word of two characters");
  }
}

}  // namespace
}  // namespace quiver::text
