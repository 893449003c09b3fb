// The words of a report: summary_paragraph and facts_line of tables.h.
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/format.h"
#include "quiver/report/tables.h"

namespace quiver::report {
namespace {

std::string strong(std::string_view text) { return "<strong>" + escape(text) + "</strong>"; }

std::string with_unit(const std::string& value, const Metric& metric) {
  return metric.unit.empty() ? value : value + " " + escape(metric.unit);
}

std::string section_phrase(const Results& results, const std::string& section) {
  const auto tasks = count_tasks(results, section);
  const auto how_many = tasks > 0 ? count_text(tasks) + " " : std::string();
  const char* plural = tasks == 1 ? "" : "s";
  if (section == "train") return format("the {}training task{}", how_many, plural);
  if (section == "instruction") return format("the {}held-out instruction task{}", how_many, plural);
  if (section == "choice") return format("the {}multiple-choice set{}", how_many, plural);
  if (section == "answer") return format("the {}task{} of answers", how_many, plural);
  if (section == "program") return format("the {}task{} of programs", how_many, plural);
  if (section == "text") return format("the {}task{} of texts", how_many, plural);
  return escape(section);
}

/// ", 0.31 lower than the base model (95 % interval 0.28 to 0.34)"
std::string difference_phrase(const Metric& metric, const SummaryRow& row, int decimals) {
  if (!difference_of(row) || std::isnan(difference_of(row)->mean)) return "";
  const auto& d = *difference_of(row);
  const auto interval = format("95\xC2\xA0% interval {} to {}", signed_text(d.low, decimals), signed_text(d.high, decimals));
  if (!d.excludes_zero()) {
    return format(", a difference of {} to the base model that may be chance ({})", signed_text(d.mean, decimals), interval);
  }
  const bool better = metric.prefers(d.mean, 0);
  return format(", {} {} than the base model{} ({})", number_text(std::abs(d.mean), decimals), d.mean < 0 ? "lower" : "higher",
                better ? "" : ", and so worse", interval);
}

/// ", and its answers have Rouge-L 0.300, 0.083 higher than the base model (...)"
std::string answers_phrase(const Results& results, const std::string& section, const Metric& metric, const SummaryRow& best) {
  const auto* answers = results.find_summary(section, best.method, kAnswerMetric);
  if (answers == nullptr || metric.name == kAnswerMetric) return "";
  const auto& answer_metric = results.metric(kAnswerMetric);
  const int decimals = decimals_for(answers->mean);
  return format("; its answers have {} {}{}", escape(answer_metric.label), number_text(answers->mean, decimals),
                difference_phrase(answer_metric, *answers, decimals));
}

/// Methods of a lower NLL than the best that are not called best, since their answers are worse than the base's.
std::string ruined_sentence(const Results& results, const std::string& section, const Metric& metric, const SummaryRow& best) {
  std::string names;
  std::int64_t count = 0;
  for (const auto& row : results.summary) {
    if (row.section != section || row.metric != metric.name || !metric.prefers(row.mean, best.mean)) continue;
    if (results.method(row.method).is_oracle || !ruins_answers(results, section, row.method)) continue;
    names += (count++ > 0 ? ", " : "") + strong(results.method(row.method).label);
  }
  if (count == 0) return "";
  return format("{} {} a better {}, but worse answers than the base model. ", names, count == 1 ? "has" : "have", escape(metric.label));
}

std::string best_sentence(const Results& results, const std::string& section, const Metric& metric) {
  const auto* best = best_of(results, section, metric.name);
  if (best == nullptr) return "";
  const int decimals = decimals_for(best->mean);
  auto value = with_unit(number_text(best->mean, decimals), metric);
  if (!std::isnan(best->standard_error)) {
    value = with_unit(number_text(best->mean, decimals) + "\xC2\xA0\xC2\xB1\xC2\xA0" + number_text(best->standard_error, decimals), metric);
  }
  const auto& method = results.method(best->method);
  if (method.is_base()) {
    return format("On {}, nothing beats the {}: {} {}. ", section_phrase(results, section), strong(method.label), escape(metric.label),
                  value) +
           ruined_sentence(results, section, metric, *best);
  }
  return format("On {}, {} does best without an oracle: {} {}{}{}. ", section_phrase(results, section), strong(method.label),
                escape(metric.label), value, difference_phrase(metric, *best, decimals), answers_phrase(results, section, metric, *best)) +
         ruined_sentence(results, section, metric, *best);
}

std::string recovered_sentence(const Results& results, const std::string& section, const Metric& metric) {
  std::vector<std::string> parts;
  for (const auto& row : results.summary) {
    if (row.section != section || row.metric != metric.name || !row.recovered) continue;
    if (results.method(row.method).is_oracle) continue;
    parts.push_back(format("{} recovers {}", strong(results.method(row.method).label), strong(percent_text(*row.recovered))));
  }
  if (parts.empty()) return "";
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    text += i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ";
    text += parts[i];
  }
  return text + " of the way from the mean of its adapters to the oracle. ";
}

}  // namespace

std::string summary_paragraph(const Results& results) {
  std::string text;
  for (const auto& section : sections_of(results)) {
    const auto metrics = metrics_of(results, section);
    if (metrics.empty()) continue;
    const auto& metric = results.metric(metrics.front());
    text += best_sentence(results, section, metric);
    text += recovered_sentence(results, section, metric);
  }
  if (text.empty()) return "<p class=\"lead muted\">These results hold no summary.</p>";
  return "<p class=\"lead\">" + text + "</p>";
}

std::string facts_line(const Results& results) {
  std::vector<std::string> facts;
  const auto fact = [&](std::int64_t count, const char* one, const char* many) {
    if (count > 0) facts.push_back(format("<b>{}</b> {}", count_text(count), count == 1 ? one : many));
  };
  if (results.base.parameters > 0) {
    facts.push_back(format("<b>{}</b> parameters", amount_text(static_cast<double>(results.base.parameters))));
  }
  fact(count_tasks(results, "train"), "training task", "training tasks");
  fact(count_tasks(results, "instruction"), "held-out instruction task", "held-out instruction tasks");
  fact(count_tasks(results, "choice"), "multiple-choice set", "multiple-choice sets");
  std::int64_t samples = 0;
  for (const auto& task : results.tasks) samples += task.num_samples;
  fact(samples, "sample", "samples");
  fact(static_cast<std::int64_t>(results.training.size()), "adapter trained", "adapters trained");
  double tokens = 0, seconds = 0;
  for (const auto& curve : results.training) {
    if (!std::isnan(curve.tokens)) tokens += curve.tokens;
    if (!std::isnan(curve.seconds)) seconds += curve.seconds;
  }
  if (tokens > 0) facts.push_back(format("<b>{}</b> tokens trained on", amount_text(tokens)));
  if (seconds > 0) facts.push_back(format("<b>{}</b> of training", duration_text(seconds)));
  if (facts.empty()) return "";
  std::string text = "<ul class=\"facts\">";
  for (const auto& item : facts) text += "<li>" + item + "</li>";
  return text + "</ul>";
}

}  // namespace quiver::report
