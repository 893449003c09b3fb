// The tables and texts of a report, as HTML.
#pragma once

#include <span>
#include <string>

#include "quiver/report/report.h"
#include "quiver/report/view.h"

namespace quiver::report {

/// What the figures say, in words: a sentence or two per section.
std::string summary_paragraph(const Results& results);
/// "96 training tasks, 12 held-out ..., 107 adapters, 9.6 M tokens trained"
std::string facts_line(const Results& results);

/// Methods by sections: mean, standard error, difference to the base model.
std::string main_table(const Results& results);
/// Every method against every other: a matrix of differences per section and metric, marked where they are told apart, and all figures to
/// unfold. Empty for results without comparisons.
std::string pair_tables(const Results& results);
/// What is wrong with the samples, to unfold.
std::string warning_list(const Results& results);
/// A sortable table per section and metric: tasks by methods.
std::string task_tables(const Results& results);
/// Tokens, time and losses per kind of adapter, and one line per adapter to unfold.
std::string training_table(const Results& results);
/// A few generations of each section, every method's beside each other.
std::string sample_cards(const Results& results, const ReportOptions& options);
/// Base model, machine, methods and settings, to unfold.
std::string settings_block(const Results& results);
/// What differs between several results, and their means beside each other.
std::string comparison_tables(std::span<const Results> results);

}  // namespace quiver::report
