// The main table of results for a terminal.
#pragma once

#include <string>

#include "quiver/results/results.h"

namespace quiver::report {

/// The main table as UTF-8 text in lines of at most `width` columns (at least 60): a table per
/// section, whose metrics stand side by side where the width allows and otherwise below one
/// another; below it who beats whom; at the end the warnings. Control characters of the results do not reach the terminal. Throws kUsage
/// for a smaller width.
std::string render_text_table(const results::Results& results, int width);

}  // namespace quiver::report
