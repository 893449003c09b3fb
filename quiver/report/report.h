// Renders results as one HTML page that needs nothing else: no network, no font, no other file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace quiver::report {

struct ReportOptions {
  /// The page's title; empty: made from the base models.
  std::string title;
  /// Generations shown side by side, per section.
  std::int64_t samples_per_section = 3;
  /// Predictions, targets and inputs longer than this many code points are cut.
  std::int64_t longest_text = 600;
  /// Where each document is from, for messages; empty: "the results".
  std::vector<std::string> origins;
};

/// The page for one or several results documents (version 1, see parse_results). Several stand side
/// by side in a table at the top, then one after the other. All text of the documents is untrusted
/// and escaped.
///
/// Deterministic: the same documents give the same bytes. Throws kUsage if there is no document,
/// kUnsupported for results of another version, kBadFormat for malformed ones.
std::string render_report(std::span<const nlohmann::json> results, const ReportOptions& options = {});

}  // namespace quiver::report
