#include "quiver/metrics/rouge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/base/error.h"
#include "quiver/metrics/porter_stemmer.h"
#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(PorterStemmer, FollowsTheExamplesOfThePaper) {
  EXPECT_EQ(porter_stem("caresses"), "caress");
  EXPECT_EQ(porter_stem("ponies"), "poni");
  EXPECT_EQ(porter_stem("cats"), "cat");
  EXPECT_EQ(porter_stem("agreed"), "agre");
  EXPECT_EQ(porter_stem("plastered"), "plaster");
  EXPECT_EQ(porter_stem("motoring"), "motor");
  EXPECT_EQ(porter_stem("sing"), "sing");
  EXPECT_EQ(porter_stem("conflated"), "conflat");
  EXPECT_EQ(porter_stem("hopping"), "hop");
  EXPECT_EQ(porter_stem("falling"), "fall");
  EXPECT_EQ(porter_stem("filing"), "file");
  EXPECT_EQ(porter_stem("happy"), "happi");
  EXPECT_EQ(porter_stem("relational"), "relat");
  EXPECT_EQ(porter_stem("vietnamization"), "vietnam");
  EXPECT_EQ(porter_stem("electricity"), "electr");
  EXPECT_EQ(porter_stem("adoption"), "adopt");
  EXPECT_EQ(porter_stem("probate"), "probat");
  EXPECT_EQ(porter_stem("cease"), "ceas");
  EXPECT_EQ(porter_stem("controlling"), "control");
  EXPECT_EQ(porter_stem("generalizations"), "gener");
}

TEST(PorterStemmer, FollowsTheDocumentedExtensions) {
  EXPECT_EQ(porter_stem("dying"), "die");  // irregular
  EXPECT_EQ(porter_stem("proceed"), "proceed");
  EXPECT_EQ(porter_stem("ties"), "tie");  // four letters keep the e
  EXPECT_EQ(porter_stem("flies"), "fli");
  EXPECT_EQ(porter_stem("died"), "die");
  EXPECT_EQ(porter_stem("spied"), "spi");
  EXPECT_EQ(porter_stem("enjoy"), "enjoy");  // y after a vowel
  EXPECT_EQ(porter_stem("geologi"), "geolog");
  EXPECT_EQ(porter_stem("rationally"), "ration");  // alli -> al, then step 2 once more
  EXPECT_EQ(porter_stem("hopefully"), "hope");
  EXPECT_EQ(porter_stem("possibly"), "possibl");
  EXPECT_EQ(porter_stem("oned"), "one");  // *o of two letters: "on"
  EXPECT_EQ(porter_stem("is"), "is");
  EXPECT_EQ(porter_stem(""), "");
}

TEST(PorterStemmer, TreatsDigitsAsConsonantsAndRunsOfYAlternately) {
  EXPECT_EQ(porter_stem("1990s"), "1990");
  EXPECT_EQ(porter_stem("yyyy"), "yyyi");
  EXPECT_EQ(porter_stem("b2bed"), "b2bed");
}

TEST(RougeTokens, AreLowerCaseAlphanumericAndStemmedAboveThreeCharacters) {
  EXPECT_THAT(rouge_tokens("It's 3.14 METRES\tlong, was"), ElementsAre("it", "s", "3", "14", "metr", "long", "was"));
  EXPECT_THAT(rouge_tokens("na\xC3\xAFve caf\xC3\xA9s"), ElementsAre("na", "ve", "caf", "s"));
  EXPECT_THAT(rouge_tokens(" \n --- "), IsEmpty());
}

TEST(RougeTokens, LowerTheTwoForeignCharactersThatBecomeAscii) {
  EXPECT_THAT(rouge_tokens("\xE2\x84\xAA"
                           "elvin \xC4\xB0stanbul"),
              ElementsAre("kelvin", "i", "stanbul"));
}

TEST(RougeTokens, TakeAnyBytes) {
  EXPECT_THAT(rouge_tokens("ab\xFF\xE2\x84"
                           "cd\xC4"),
              ElementsAre("ab", "cd"));
  EXPECT_THAT(rouge_tokens(std::string_view("a\0b", 3)), ElementsAre("a", "b"));
}

// Expected values: rouge-score 0.1.2 with use_stemmer=True.
TEST(RougeL, EqualsTheReference) {
  const auto score = rouge_l("The quick brown fox jumps over the lazy dog", "the quick brown dogs jumped on the log");
  EXPECT_DOUBLE_EQ(score.precision, 0.625);
  EXPECT_DOUBLE_EQ(score.recall, 0.5555555555555556);
  EXPECT_DOUBLE_EQ(score.f_measure, 0.5882352941176471);
  EXPECT_DOUBLE_EQ(rouge_l("running runners ran", "the runner was running").f_measure, 0.28571428571428575);
  EXPECT_DOUBLE_EQ(rouge_l("a b c d", "d c b a").f_measure, 0.25);
  EXPECT_DOUBLE_EQ(rouge_l("It's 3.14 metres\tlong", "its 3 14 meter long").f_measure, 0.5454545454545454);
}

TEST(RougeL, IsZeroWithoutTokensOrOverlap) {
  EXPECT_EQ(rouge_l("", "").f_measure, 0);
  EXPECT_EQ(rouge_l("word", "...").f_measure, 0);
  EXPECT_EQ(rouge_l("one two", "three").f_measure, 0);
}

TEST(BestRougeL, TakesTheBestTarget) {
  const std::vector<std::string> targets = {"nothing alike", "the cat sat", "a cat"};
  EXPECT_DOUBLE_EQ(best_rouge_l(targets, "the cat sat"), 1);
}

TEST(BestRougeL, RefusesNoTargets) { EXPECT_ERROR(best_rouge_l({}, "text"), ErrorKind::kUsage, "at least one target"); }

}  // namespace
}  // namespace quiver::metrics
