#include "quiver/report/parts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/report/charts.h"
#include "quiver/report/format.h"
#include "quiver/report/tables.h"

namespace quiver::report {
namespace {

using Order = std::vector<std::size_t>;

std::string figure(const std::string& picture, const std::string& caption) {
  return "<figure><div class=\"scroll\">" + picture + "</div><figcaption>" + caption + "</figcaption></figure>";
}

/// Positions 0 .. n-1 sorted by label, in their own order within a label.
Order order_by(const std::vector<std::int64_t>& labels) {
  Order order(labels.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return labels[i]; });
  return order;
}

/// Where the label changes along the order, and each group's first position and name.
struct Groups {
  std::vector<std::int64_t> breaks;
  std::vector<std::pair<std::int64_t, std::string>> groups;
};

Groups groups_of(const Order& order, const std::vector<std::int64_t>& labels) {
  Groups result;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && labels[order[i]] == labels[order[i - 1]]) continue;
    if (i > 0) result.breaks.push_back(static_cast<std::int64_t>(i));
    result.groups.emplace_back(static_cast<std::int64_t>(i), std::to_string(labels[order[i]]));
  }
  return result;
}

/// Mean similarity of pairs inside one cluster and across two; NaN where there is no pair.
std::pair<double, double> mean_similarities(const Clusters& clusters) {
  double inside = 0, across = 0;
  std::int64_t num_inside = 0, num_across = 0;
  const auto n = clusters.adapters.size();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      const double value = clusters.similarity[i * n + j];
      if (i == j || std::isnan(value)) continue;
      const bool same = clusters.labels[i] == clusters.labels[j];
      (same ? inside : across) += value;
      ++(same ? num_inside : num_across);
    }
  }
  return {inside / static_cast<double>(num_inside), across / static_cast<double>(num_across)};
}

std::string similarity_caption(const Clusters& clusters, std::size_t num_clusters) {
  const auto [inside, across] = mean_similarities(clusters);
  auto text = format("Cosine similarity of {} adapters in {} {}, cluster by cluster. ", clusters.adapters.size(), num_clusters,
                     num_clusters == 1 ? "cluster" : "clusters");
  if (!std::isnan(inside)) text += format("Mean inside a cluster: <b>{}</b>. ", number_text(inside, 3));
  if (!std::isnan(across)) text += format("Mean across clusters: <b>{}</b>.", number_text(across, 3));
  return text;
}

/// The members of each cluster, to unfold.
std::string cluster_members(const Clusters& clusters, const Order& order) {
  std::map<std::int64_t, std::vector<std::string>> members;
  for (const auto i : order) members[clusters.labels[i]].push_back(clusters.adapters[i]);
  std::string html = "<details><summary>The members of each cluster</summary><dl>";
  for (const auto& [label, names] : members) {
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + escape(name);
    html += format("<div><dt>{} <span class=\"muted\">({})</span></dt><dd>{}</dd></div>", label, names.size(), list);
  }
  return html + "</dl></details>";
}

}  // namespace

std::string difference_part(const Results& results) {
  std::string html;
  for (const auto& section : sections_of(results)) {
    std::string charts;
    for (const auto& metric : metrics_of(results, section)) charts += difference_chart(results, section, metric);
    if (charts.empty()) continue;
    html += format("<div><h3>{}</h3>{}</div>", escape(section_label(section)), charts);
  }
  if (html.empty()) return "";
  return "<div class=\"panels\">" + html +
         "</div><p class=\"note\">Dots: mean difference to the base model on the same samples. Bars: 95 % interval. <span "
         "class=\"better\">\xE2\x97\x8F</span> better, <span class=\"worse\">\xE2\x97\x8F</span> worse, <span "
         "class=\"unsure\">\xE2\x97\x8B</span> the interval includes zero.</p>";
}

std::string training_part(const Results& results) {
  std::string charts;
  for (const auto& kind : distinct(results.training, &Curve::kind)) {
    std::vector<const Curve*> curves;
    for (const auto& curve : results.training) {
      if (curve.kind == kind) curves.push_back(&curve);
    }
    charts += curve_chart(curves, kind);
  }
  std::string html;
  if (!charts.empty()) {
    html = "<div class=\"panels\">" + charts +
           "</div><p class=\"note\">Training loss (nats per target token), an exponential moving average over about a fifteenth of each "
           "curve. Where curves are many: thick, their median; by name, where the lowest and the highest end.</p>";
  }
  return html + training_table(results);
}

std::string similarity_part(const Results& results) {
  const auto& clusters = results.clusters;
  const auto n = clusters.adapters.size();
  if (n == 0) return "";
  const auto order = order_by(clusters.labels);
  if (clusters.similarity.empty()) return cluster_members(clusters, order);
  const auto groups = groups_of(order, clusters.labels);
  HeatMap map;
  map.description = "Similarity of adapters, ordered by cluster";
  map.row_breaks = map.column_breaks = groups.breaks;
  map.row_groups = map.column_groups = groups.groups;
  map.low = INFINITY, map.high = -INFINITY;
  for (std::size_t row = 0; row < n; ++row) {
    const auto i = order[row];
    map.rows.push_back(clusters.adapters[i]);
    map.columns.push_back(clusters.adapters[i]);
    std::vector<double> similarities(n);
    for (std::size_t column = 0; column < n; ++column) {
      const double value = clusters.similarity[i * n + order[column]];
      map.values.push_back(value);
      similarities[order[column]] = row == column ? std::nan("") : value;
      // The diagonal is 1 by definition and would flatten the colours of all others.
      if (row != column && !std::isnan(value)) map.low = std::min(map.low, value), map.high = std::max(map.high, value);
    }
    auto title = format("{} (cluster {}), nearest:", clusters.adapters[i], clusters.labels[i]);
    for (const auto j : largest(similarities, 4)) {
      title += format("\n{} {} (cluster {})", number_text(similarities[j], 3), clusters.adapters[j], clusters.labels[j]);
    }
    map.row_titles.push_back(title);
  }
  if (!(map.low < map.high)) map.low = 0, map.high = 1;
  return figure(heat_map(map), similarity_caption(clusters, groups.groups.size())) + cluster_members(clusters, order);
}

}  // namespace quiver::report
