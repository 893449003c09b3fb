// Every method against every other, as reports show it.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/report/view.h"

namespace quiver::report {

using results::Comparison;
using results::PairedTest;
using results::Warning;

/// The test that a report goes by: of held-out tasks the one by task, as difference_of has it.
const std::optional<PairedTest>& test_of(const Comparison& comparison);
/// Is `method` "better" or "worse" than `other`? "unsure" unless test_of tells them apart after correction, or if nobody said which way is
/// better.
std::string verdict(const Metric& metric, const Comparison& comparison);

/// The comparisons of one metric of a section, in both directions. `results` must outlive this.
class Pairs {
 public:
  Pairs(const Results& results, std::string_view section, std::string_view metric);

  std::size_t size() const { return pairs_.size(); }
  /// The largest number of samples that two methods share.
  std::int64_t num_samples() const;
  /// `method` minus `other`; nothing if the two were not compared.
  std::optional<Comparison> find(std::string_view method, std::string_view other) const;
  const std::map<std::pair<std::string_view, std::string_view>, const Comparison*>& all() const { return pairs_; }

 private:
  std::map<std::pair<std::string_view, std::string_view>, const Comparison*> pairs_;  // method, other
};

/// The rows of a section's summary in one metric, the best mean first; none if nobody said which way is better. Means that are NaN are left
/// out.
std::vector<const SummaryRow*> ranking(const Results& results, std::string_view section, std::string_view metric);

/// Numbers in ascending order as "1, 3–5".
std::string ranges_text(const std::vector<std::size_t>& numbers);
/// "0.0312", "< 0.0001"; an en dash for NaN.
std::string p_text(double p);

/// Warnings of one kind and task.
struct WarningGroup {
  std::string section, task, phrase;  ///< "accuracy may be guessing"
  std::vector<const Warning*> warnings;
};
/// In the order of their first warning.
std::vector<WarningGroup> warning_groups(const Results& results);
/// The method's label, or nothing for a warning without a method.
std::string method_label(const Results& results, const Warning& warning);

}  // namespace quiver::report
