// Generations, settings and the comparison of several results: the rest of tables.h.
#include <algorithm>
#include <map>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/report/format.h"
#include "quiver/report/tables.h"

namespace quiver::report {
namespace {

constexpr int kDeepestSettings = 32;
constexpr std::size_t kMostDifferences = 40;

std::string cut(std::string_view text, std::int64_t longest) {
  const auto points = code_points_of(text);
  if (static_cast<std::int64_t>(points.size()) <= longest) return escape(text);
  std::string head;
  for (std::int64_t i = 0; i < longest; ++i) append_utf8(head, points[static_cast<std::size_t>(i)]);
  return escape(head) + "\xE2\x80\xA6";
}

std::string_view prediction_of(const Sample& sample) { return sample.prediction ? std::string_view(*sample.prediction) : ""; }

std::string kind_of(const Results& results, const Sample& sample) {
  const auto* task = results.find_task(sample.task);
  return task == nullptr ? "" : task->kind;
}

struct Card {
  std::string task, id;
  std::vector<const Sample*> samples;
  std::size_t distinct = 0;  ///< different predictions
};

/// The sample of a task that says most: that on which most methods answered, and most differently.
std::vector<Card> cards_of(const Results& results, const std::string& kind) {
  std::vector<Card> tasks;
  std::map<std::pair<std::string, std::string>, std::vector<const Sample*>> groups;
  for (const auto& sample : results.samples) {
    if (kind_of(results, sample) == kind) groups[{sample.task, sample.id}].push_back(&sample);
  }
  for (auto& [key, samples] : groups) {
    std::set<std::string_view> predictions;
    for (const auto* sample : samples) predictions.insert(prediction_of(*sample));
    Card card{.task = key.first, .id = key.second, .samples = std::move(samples), .distinct = predictions.size()};
    if (tasks.empty() || tasks.back().task != card.task) {
      tasks.push_back(std::move(card));
    } else if (std::pair(card.samples.size(), card.distinct) > std::pair(tasks.back().samples.size(), tasks.back().distinct)) {
      tasks.back() = std::move(card);
    }
  }
  return tasks;
}

std::string card_html(const Results& results, const Card& card, const ReportOptions& options) {
  const auto& first = *card.samples.front();
  std::string html = format("<article class=\"card\"><h4>{} <span class=\"muted\">{}</span></h4>", escape(card.task), escape(card.id));
  html += "<div class=\"scroll\"><table class=\"data samples\"><tbody>";
  if (!first.targets.empty()) {
    std::string targets;
    for (std::size_t i = 0; i < first.targets.size() && i < 3; ++i) {
      targets += (i == 0 ? "" : "<hr>") + cut(first.targets[i], options.longest_text);
    }
    if (first.targets.size() > 3) targets += format("<hr><span class=\"muted\">and {} more</span>", first.targets.size() - 3);
    html += format("<tr class=\"target\"><th scope=\"row\">Target</th><td class=\"said\">{}</td></tr>", targets);
  }
  for (const auto& method : results.methods) {
    const auto found = std::ranges::find(card.samples, method.name, &Sample::method);
    if (found == card.samples.end()) continue;
    std::string scores;
    for (const auto& [name, value] : (*found)->metrics) {
      scores += format("{}<span>{} {}</span>", scores.empty() ? "" : " \xC2\xB7 ", escape(results.metric(name).label),
                       number_text(value, decimals_for(value)));
    }
    const auto said = prediction_of(**found);
    const auto answer = said.empty() ? std::string("<span class=\"muted\">(nothing)</span>") : cut(said, options.longest_text);
    html += format("<tr><th scope=\"row\">{}</th><td><div class=\"said\">{}</div><div class=\"scores\">{}</div></td></tr>",
                   escape(method.label), answer, scores);
  }
  return html + "</tbody></table></div></article>";
}

std::string scalar_text(const nlohmann::json& value) {
  if (value.is_string()) return escape(value.get_ref<const std::string&>());
  return escape(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

bool is_short_list(const nlohmann::json& value) {
  return value.is_array() && std::ranges::none_of(value, [](const auto& item) { return item.is_structured(); });
}

std::string settings_tree(const nlohmann::json& value, int depth) {
  if (!value.is_structured() || depth >= kDeepestSettings) return scalar_text(value);
  if (is_short_list(value)) {
    std::string list;
    for (const auto& item : value) list += (list.empty() ? "" : ", ") + scalar_text(item);
    return list.empty() ? "<span class=\"muted\">(none)</span>" : list;
  }
  std::string html = "<dl>";
  for (const auto& [key, item] : value.items()) {
    html += format("<div><dt>{}</dt><dd>{}</dd></div>", escape(key), settings_tree(item, depth + 1));
  }
  return html + "</dl>";
}

void flatten(const nlohmann::json& value, const std::string& path, int depth, std::map<std::string, std::string>& out) {
  if (!value.is_object() || depth >= kDeepestSettings) {
    out[path] = is_short_list(value) ? settings_tree(value, depth) : scalar_text(value);
    return;
  }
  for (const auto& [key, item] : value.items()) flatten(item, path.empty() ? key : path + "." + key, depth + 1, out);
}

std::string run_headings(std::span<const Results> results, const char* first) {
  std::string html = format("<thead><tr><th scope=\"col\" class=\"first\">{}</th>", first);
  for (std::size_t i = 0; i < results.size(); ++i) {
    html += format("<th scope=\"col\" class=\"num\"><a href=\"#run{}\">{}. {}</a></th>", i + 1, i + 1,
                   escape(results[i].base.name.empty() ? "results" : results[i].base.name));
  }
  return html + "</tr></thead>";
}

std::string differing_settings(std::span<const Results> results) {
  std::vector<std::map<std::string, std::string>> flat(results.size());
  std::set<std::string> keys;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto& r = results[i];
    flat[i] = {{"base", escape(r.base.name)},
               {"dtype", escape(r.base.dtype)},
               {"parameters", count_text(r.base.parameters)},
               {"created", escape(r.created)},
               {"tasks", count_text(static_cast<std::int64_t>(r.tasks.size()))}};
    for (const auto& [key, value] : r.machine) flat[i]["machine." + key] = escape(value);
    if (r.settings.is_object()) flatten(r.settings, "settings", 0, flat[i]);
    for (const auto& [key, value] : flat[i]) keys.insert(key);
  }
  std::string rows;
  std::size_t count = 0;
  for (const auto& key : keys) {
    std::set<std::string> values;
    std::string cells;
    for (const auto& run : flat) {
      const auto found = run.find(key);
      const auto value = found == run.end() ? std::string("\xE2\x80\x93") : found->second;
      values.insert(value);
      cells += "<td class=\"num\">" + value + "</td>";
    }
    if (values.size() < 2 || ++count > kMostDifferences) continue;
    rows += format("<tr><th scope=\"row\" class=\"first\">{}</th>", escape(key)) + cells + "</tr>";
  }
  if (rows.empty()) return "<p class=\"note\">The runs have the same settings.</p>";
  return "<h3>What differs</h3><div class=\"scroll\"><table class=\"data differs\">" + run_headings(results, "Setting") + "<tbody>" + rows +
         "</tbody></table></div>";
}

/// One metric of one section: methods by runs.
std::string compared_means(std::span<const Results> results, const std::string& section, const std::string& metric) {
  std::vector<const Method*> methods;
  const Metric* described = nullptr;
  for (const auto& r : results) {
    for (const auto& method : r.methods) {
      const bool known = std::ranges::any_of(methods, [&](const Method* m) { return m->name == method.name; });
      if (r.find_summary(section, method.name, metric) != nullptr) {
        if (!known) methods.push_back(&method);
        if (described == nullptr) described = &r.metric(metric);
      }
    }
  }
  if (described == nullptr) return "";
  const auto title = escape(section_label(section)) + ": " + escape(described->label);
  std::string html =
      format("<div><h3>{}</h3><div class=\"scroll\"><table class=\"data\">", title) + run_headings(results, "Method") + "<tbody>";
  for (const auto* method : methods) {
    html += format("<tr{}><th scope=\"row\" class=\"first\">{}</th>", method->is_oracle ? " class=\"oracle\"" : "", escape(method->label));
    for (const auto& r : results) {
      const auto* row = r.find_summary(section, method->name, metric);
      if (row == nullptr) {
        html += "<td class=\"num none\">\xE2\x80\x93</td>";
        continue;
      }
      const int decimals = decimals_for(row->mean);
      html += format("<td class=\"num{}\">{} <span class=\"se\">\xC2\xB1 {}</span></td>", row == best_of(r, section, metric) ? " best" : "",
                     number_text(row->mean, decimals), number_text(row->standard_error, decimals));
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div></div>";
}

}  // namespace

std::string sample_cards(const Results& results, const ReportOptions& options) {
  std::string html;
  for (const auto& kind : distinct(results.samples, [&](const Sample& sample) { return kind_of(results, sample); })) {
    const auto cards = cards_of(results, kind);
    const auto shown = std::min(static_cast<std::int64_t>(cards.size()), options.samples_per_section);
    if (shown <= 0) continue;
    html += format("<h3>{}</h3><div class=\"cards\">", kind.empty() ? "Other tasks" : escape(section_label(kind)));
    for (std::int64_t i = 0; i < shown; ++i) {
      // Spread evenly over the tasks, not picked: nobody should wonder why these.
      const auto index = static_cast<std::size_t>(i * static_cast<std::int64_t>(cards.size()) / shown);
      html += card_html(results, cards[index], options);
    }
    html += "</div>";
  }
  return html;
}

std::string settings_block(const Results& results) {
  std::string html;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) html += format("<div><dt>{}</dt><dd>{}</dd></div>", name, value);
  };
  add("created", escape(results.created));
  add("base model", escape(results.base.name));
  if (!results.base.fingerprint.empty()) add("fingerprint", "<code>" + escape(results.base.fingerprint) + "</code>");
  if (results.base.parameters > 0) add("parameters", count_text(results.base.parameters));
  add("dtype", escape(results.base.dtype));
  std::string machine, methods;
  for (const auto& [key, value] : results.machine) {
    machine += format("<div><dt>{}</dt><dd>{}</dd></div>", escape(key), escape(value));
  }
  if (!machine.empty()) add("machine", "<dl>" + machine + "</dl>");
  for (const auto& method : results.methods) {
    if (method.description.empty()) continue;
    methods += format("<div><dt>{}</dt><dd>{}</dd></div>", escape(method.label), escape(method.description));
  }
  if (!methods.empty()) add("methods", "<dl>" + methods + "</dl>");
  if (!results.settings.is_null() && !results.settings.empty()) add("settings", settings_tree(results.settings, 0));
  if (html.empty()) return "";
  return "<details class=\"settings\"><summary>Methods, machine and all settings</summary><dl>" + html + "</dl></details>";
}

std::string comparison_tables(std::span<const Results> results) {
  std::string html = differing_settings(results) + "<div class=\"panels wide\">";
  std::vector<std::pair<std::string, std::string>> seen;
  for (const auto& r : results) {
    for (const auto& section : sections_of(r)) {
      for (const auto& metric : metrics_of(r, section)) {
        const std::pair key(section, metric);
        if (std::ranges::find(seen, key) != seen.end()) continue;
        seen.push_back(key);
        html += compared_means(results, section, metric);
      }
    }
  }
  return html + "</div>";
}

}  // namespace quiver::report
