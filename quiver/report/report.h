// Renders results as one HTML page that needs nothing else: no network, no font, no other file.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "quiver/results/results.h"

namespace quiver::report {

struct ReportOptions {
  /// The page's title; empty: made from the base models.
  std::string title;
  /// Generations shown side by side, per section.
  std::int64_t samples_per_section = 3;
  /// Predictions and targets longer than this many code points are cut.
  std::int64_t longest_text = 600;
};

/// The page for one or several results. Several stand side by side in a table at the top, then one after the other. All text of the results
/// is untrusted and escaped.
///
/// Deterministic: the same results give the same bytes. Throws kUsage if there are none.
std::string render_report(std::span<const results::Results> all, const ReportOptions& options = {});

}  // namespace quiver::report
