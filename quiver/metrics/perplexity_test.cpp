#include "quiver/metrics/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

TEST(CountWords, IsOneMoreThanTheRunsOfSpace) {
  EXPECT_EQ(count_words("two words"), 2);
  EXPECT_EQ(count_words("two\u2003 \n\x1Cwords"), 2);
  EXPECT_EQ(count_words(" a "), 3);  // an empty word at each end
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words(" "), 2);
  EXPECT_EQ(count_words("zero\u200Bwidth"), 1);
}

TEST(CountWords, RefusesOtherBytes) { EXPECT_ERROR(count_words("\xFF"), ErrorKind::kBadFormat, "the text of 1 bytes is not UTF-8"); }

TEST(Perplexity, WeighsTextsByTheirLength) {
  // -12 nats over 3 words and 12 bytes.
  const std::vector<TextScore> texts = {text_score("ab \u00E9f", -2), text_score("abcdef", -10)};
  EXPECT_DOUBLE_EQ(word_perplexity(texts), std::exp(4.0));
  EXPECT_DOUBLE_EQ(byte_perplexity(texts), std::exp(1.0));
  EXPECT_DOUBLE_EQ(bits_per_byte(texts), 1 / std::log(2.0));
}

TEST(Perplexity, IsInfiniteForAnImpossibleText) {
  const std::vector<TextScore> texts = {text_score("a", -std::numeric_limits<double>::infinity())};
  EXPECT_EQ(word_perplexity(texts), std::numeric_limits<double>::infinity());
}

TEST(Perplexity, RefusesNoLengthAndNan) {
  EXPECT_ERROR(word_perplexity({}), ErrorKind::kUsage, "0 texts have 0 words");
  EXPECT_ERROR(bits_per_byte(std::vector{text_score("", 0)}), ErrorKind::kUsage, "1 texts have 0 bytes");
  const std::vector<TextScore> texts = {text_score("a", -1), text_score("a", std::nan(""))};
  EXPECT_ERROR(byte_perplexity(texts), ErrorKind::kUsage, "text 1 is not a number");
}

}  // namespace
}  // namespace quiver::metrics
