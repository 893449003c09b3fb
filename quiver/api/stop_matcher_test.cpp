#include "quiver/api/stop_matcher.h"

#include <algorithm>

#include "quiver/api/test_support.h"
#include "quiver/base/random.h"

namespace quiver::api {
namespace {

/// The text up to the first place where a stop string starts, by looking at the whole of it.
std::string cut_slowly(const std::string& text, const std::vector<std::string>& stops) {
  std::size_t first = text.size();
  for (const auto& stop : stops) first = std::min(first, text.find(stop));
  return text.substr(0, first);
}

struct Streamed {
  std::string text;
  std::vector<std::string> pieces;
  bool is_stopped = false;
};

Streamed streamed(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopMatcher matcher(stops);
  Streamed result;
  for (const auto& piece : pieces) {
    std::string out;
    matcher.push(piece, out);
    result.text += out;
    result.pieces.push_back(out);
  }
  std::string out;
  matcher.finish(out);
  result.text += out;
  result.pieces.push_back(out);
  result.is_stopped = matcher.is_stopped();
  return result;
}

TEST(StopMatcher, HoldsBackTheStartOfAStopString) {
  EXPECT_EQ(streamed({"Hello\n", "\n", "more"}, {"\n\n"}).pieces, (std::vector<std::string>{"Hello", "", "", ""}));
  EXPECT_EQ(streamed({"Hello\n", "there\n"}, {"\n\n"}).pieces, (std::vector<std::string>{"Hello", "\nthere", "\n"}));
  EXPECT_EQ(streamed({"a", "b", "c"}, {}).pieces, (std::vector<std::string>{"a", "b", "c", ""}));
  EXPECT_EQ(streamed({"abab", "ac"}, {"abac"}).pieces, (std::vector<std::string>{"ab", "", ""}));
}

TEST(StopMatcher, LetsTheEarliestStartWin) {
  EXPECT_EQ(streamed({"xabc", "d"}, {"bc", "abcd"}).text, "x");   // waits whether "abcd" comes
  EXPECT_EQ(streamed({"xabc", "e"}, {"bc", "abcd"}).text, "xa");  // it does not
  EXPECT_EQ(streamed({"xabc"}, {"bc", "abcd"}).text, "xa");       // nor at the end
  EXPECT_TRUE(streamed({"xabc"}, {"bc", "abcd"}).is_stopped);
  EXPECT_EQ(streamed({"xab"}, {"ab", "abc"}).pieces, (std::vector<std::string>{"x", ""}));
}

TEST(StopMatcher, DropsWhatComesAfterAMatch) {
  const auto result = streamed({"a STOP b", "c", "STOP"}, {"STOP"});
  EXPECT_EQ(result.text, "a ");
  EXPECT_TRUE(result.is_stopped);
}

TEST(StopMatcher, LeavesOutEmptyStops) {
  EXPECT_EQ(streamed({"ab"}, {"", "b"}).text, "a");
  EXPECT_FALSE(streamed({"ab"}, {""}).is_stopped);
}

TEST(StopMatcher, CutsAsTheWholeTextIsCutHoweverItComes) {
  RandomStream random(1, "stop_matcher");
  const auto word = [&](std::uint64_t most, std::uint64_t letters) {
    std::string out;
    for (auto left = random.below(most + 1); left > 0; --left) out += static_cast<char>('a' + random.below(letters));
    return out;
  };
  std::int64_t num_stopped = 0;
  for (int round = 0; round < 20'000; ++round) {
    const auto letters = 1 + random.below(3);
    std::vector<std::string> stops, pieces;
    for (auto left = random.below(5); left > 0; --left) stops.push_back(word(1 + random.below(7), letters));
    std::erase(stops, std::string());
    std::string text;
    for (auto left = random.below(12); left > 0; --left) text += pieces.emplace_back(word(random.below(6), letters));
    const auto result = streamed(pieces, stops);
    ASSERT_EQ(result.text, cut_slowly(text, stops)) << "round " << round << " text " << text;
    ASSERT_EQ(result.is_stopped, result.text.size() < text.size());
    num_stopped += result.is_stopped ? 1 : 0;
    // Of what is not out yet, no more is held back than may be the start of a stop string.
    std::string sent, got;
    StopMatcher matcher(stops);
    for (const auto& piece : pieces) {
      matcher.push(piece, got);
      sent += piece;
      if (matcher.is_stopped()) break;
      const auto held = sent.substr(got.size());
      const bool may_start = held.empty() || std::ranges::any_of(stops, [&](const auto& stop) {
                               return held.starts_with(stop.substr(0, held.size())) || stop.starts_with(held);
                             });
      ASSERT_TRUE(may_start) << "round " << round << " holds '" << held << "'";
    }
  }
  EXPECT_GT(num_stopped, 3000);
  EXPECT_LT(num_stopped, 17'000);
}

}  // namespace
}  // namespace quiver::api
