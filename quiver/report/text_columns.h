// Columns of text for a terminal, and the overview that is drawn with them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "quiver/report/format.h"
#include "quiver/report/view.h"

namespace quiver::report {

inline constexpr std::int64_t kWidestLabel = 26;
inline constexpr std::int64_t kColumnGap = 2;

struct TextColumn {
  std::vector<std::string> cells;  ///< the heading first

  std::int64_t width() const {
    std::int64_t widest = 0;
    for (const auto& cell : cells) widest = std::max(widest, display_width(cell));
    return widest;
  }
};

/// Of all columns with the gaps before them.
std::int64_t total_width(const std::vector<TextColumn>& columns);

/// Lines of a table with a rule below the headings. The label column is shortened to what `width` leaves; the other columns are never cut.
std::string draw_columns(TextColumn labels, const std::vector<TextColumn>& columns, std::int64_t width);

/// The words of a text in lines of at most `width` columns (a longer word has a line of its own), each ended.
std::string wrapped(const std::string& text, std::int64_t width);

/// " ↓", " ↑", or nothing where nobody said which way is better.
const char* direction(const Metric& metric);

/// " ▲" for a difference that is better, " ▼" for a worse one, or as wide a blank.
std::string mark_of(const Metric& metric, const std::optional<Difference>& difference);
/// "+0.083 [+0.032, +0.133] ▲", or nothing where the row has no difference.
std::string difference_text(const Metric& metric, const SummaryRow& row, int decimals);

/// The methods of a section by rank in its main metric, each with the ranks of those that it beats and loses to. Nothing for results
/// without comparisons, or where nobody said which way is better.
std::string pairs_text(const Results& results, const std::string& section, std::int64_t width);
/// What the words of pairs_text mean; nothing for results without comparisons.
std::string pairs_legend(const Results& results, std::int64_t width);
/// A line for each kind of warning and task, a dozen at most.
std::string warnings_text(const Results& results, std::int64_t width);

/// What a reader wants first: a sentence and one table over all sections, held-out tasks first, and what each method is, in a word. Nothing
/// for results without a section of held-out instructions, a base, or another method.
std::string overview_text(const Results& results, std::int64_t width);

}  // namespace quiver::report
