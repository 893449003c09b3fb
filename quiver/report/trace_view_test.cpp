#include "quiver/report/trace_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::report {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

/// Two tokens, three adapters, two projections in layer 0 and one in layer 10.
json small_trace() {
  return json::parse(R"({
    "quiver_trace": 1, "base": "tiny", "method": "arrow", "what": "top k", "combine": "params",
    "adapters": ["<b>", "second", "third"],
    "tokens": [{"id": 1, "text": "Is\n"}, {"id": 2, "text": "<script>"}],
    "projections": [
      {"path": "layers.0.q", "choices": [[[1, 0.75], [0, 0.25]], [[2, 1.0], [0, 0.0]]]},
      {"path": "layers.0.v", "choices": [[[1, 1.0], [0, 0.0]], [[2, 0.5], [0, 0.5]]]},
      {"path": "layers.10.q", "choices": [[[0, 1.0], [1, 0.0]], [[2, 1.0], [0, 0.0]]]}],
    "statistics": {"entropy": 0.21, "largest_entropy": 0.69, "margin": 0.8, "agreement": 0.5, "shares": [0.2917, 0.2917, 0.4166]}})");
}

TEST(TraceText, ShowsFiguresSharesAndTheFavouriteOfEachLayer) {
  const auto text = render_trace_text(small_trace(), {.width = 80, .every_token = true});
  EXPECT_THAT(text, HasSubstr("arrow over 3 adapters, 2 tokens: entropy 0.21 of 0.69, margin 0.80, agreement of projections 50 %"));
  EXPECT_THAT(text, HasSubstr("A third"));  // the largest share has the first letter
  EXPECT_THAT(text, HasSubstr("B <b>"));
  EXPECT_THAT(text, HasSubstr("C second"));
  EXPECT_THAT(text, HasSubstr("Is "));    // no line break of a token's own
  EXPECT_THAT(text, HasSubstr(" CB\n"));  // layer 0 favours "second", layer 10 "<b>"
  EXPECT_THAT(text, HasSubstr(" AA\n"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_trace_text(small_trace(), {.width = 80, .has_colour = true, .every_token = true}), HasSubstr("\x1b[38;5;"));
}

TEST(TraceText, FitsANarrowTerminal) {
  const auto text = render_trace_text(small_trace(), {.width = 24, .every_token = true});
  std::size_t begin = text.find("  A ");
  for (auto end = text.find('\n', begin); end != std::string::npos; begin = end + 1, end = text.find('\n', begin)) {
    if (text.compare(begin, 2, "  ") == 0) {
      EXPECT_LE(end - begin, 26u) << text.substr(begin, end - begin);
    }
  }
}

TEST(TracePage, EscapesAllTextAndLoadsNothing) {
  const auto page = render_trace_page(small_trace(), "");
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;</button>"));
  EXPECT_THAT(page, HasSubstr("Is\u21B5</button><br>"));
  EXPECT_THAT(page, HasSubstr("&lt;b&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_THAT(page, Not(HasSubstr("http://")));
  EXPECT_THAT(page, HasSubstr("Content-Security-Policy"));
  // Of layer 0, token 0: third 0, "<b>" (0.25 + 0) / 2, second (0.75 + 1) / 2, in 6-bit letters.
  EXPECT_THAT(page, HasSubstr("\"AAIA3_"));
}

TEST(Trace, RefusesWhatIsNone) {
  EXPECT_ERROR(render_trace_text(json::object(), {}), ErrorKind::kBadFormat, "not a trace: it has no member 'quiver_trace'");
  auto other = small_trace();
  other["quiver_trace"] = 2;
  EXPECT_ERROR(render_trace_text(other, {}), ErrorKind::kUnsupported, "a trace of version 2; this program reads version 1");
  other = small_trace();
  other["projections"][0]["choices"][0][0][0] = 7;
  EXPECT_ERROR(render_trace_page(other, ""), ErrorKind::kBadFormat, "not a trace: an index or a layer is out of range");
  other = small_trace();
  other.erase("statistics");
  EXPECT_ERROR(render_trace_page(other, ""), ErrorKind::kBadFormat, "key 'statistics' not found");
}

}  // namespace
}  // namespace quiver::report
