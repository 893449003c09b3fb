// Where the router sends the tasks: routing_part of parts.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/report/charts.h"
#include "quiver/report/format.h"
#include "quiver/report/parts.h"

namespace quiver::report {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
constexpr std::int64_t kMostLayerCells = 20'000;
constexpr std::int64_t kUnclustered = std::numeric_limits<std::int64_t>::max();

struct Row {
  const TaskRouting* routing;
  std::string kind;
  std::size_t own;            ///< place of the task's own adapter among the columns, or kNone
  std::vector<double> share;  ///< per column, averaged over the layers
};

/// One library's routing with adapters (columns) and tasks (rows) in the order of the page.
struct View {
  const LibraryRouting* library;
  std::vector<std::size_t> columns;    ///< positions in library->adapters
  std::vector<std::int64_t> clusters;  ///< per column; kUnclustered where unknown
  std::vector<Row> rows;
};

std::int64_t cluster_of(const Results& results, const std::string& adapter) {
  const auto& names = results.clusters.adapters;
  const auto found = std::ranges::find(names, adapter);
  return found == names.end() ? kUnclustered : results.clusters.labels[static_cast<std::size_t>(found - names.begin())];
}

/// A task's own adapter has its name or, in a library of clusters, that of its cluster: "3" or "cluster-3".
bool is_own(const Task* task, const std::string& task_name, const std::string& adapter) {
  if (adapter == task_name) return true;
  if (task == nullptr || task->group.empty() || !adapter.ends_with(task->group)) return false;
  const auto head = std::string_view(adapter).substr(0, adapter.size() - task->group.size());
  return head.empty() || head == "cluster" || head == "cluster-" || head == "cluster_";
}

std::vector<double> mean_shares(const TaskRouting& routing, const std::vector<std::size_t>& columns) {
  std::vector<double> mean(columns.size(), std::nan(""));
  for (std::size_t c = 0; c < columns.size(); ++c) {
    double sum = 0;
    std::int64_t count = 0;
    for (const auto& layer : routing.layers) {
      if (const double share = layer.share[columns[c]]; !std::isnan(share)) sum += share, ++count;
    }
    if (count > 0) mean[c] = sum / static_cast<double>(count);
  }
  return mean;
}

View view_of(const Results& results, const LibraryRouting& library) {
  View view{.library = &library, .columns = {}, .clusters = {}, .rows = {}};
  view.columns.resize(library.adapters.size());
  std::iota(view.columns.begin(), view.columns.end(), std::size_t{0});
  std::vector<std::int64_t> clusters;
  for (const auto& adapter : library.adapters) clusters.push_back(cluster_of(results, adapter));
  std::ranges::stable_sort(view.columns, {}, [&](std::size_t i) { return clusters[i]; });
  for (const auto i : view.columns) view.clusters.push_back(clusters[i]);

  for (const auto& routing : library.tasks) {
    const auto* task = results.find_task(routing.task);
    Row row{.routing = &routing, .kind = task == nullptr ? "" : task->kind, .own = kNone, .share = {}};
    for (std::size_t c = 0; c < view.columns.size() && row.own == kNone; ++c) {
      if (is_own(task, routing.task, library.adapters[view.columns[c]])) row.own = c;
    }
    row.share = mean_shares(routing, view.columns);
    view.rows.push_back(std::move(row));
  }
  const auto rank = [](const std::string& kind) { return kind == "train" ? 0 : kind == "instruction" ? 1 : kind == "choice" ? 2 : 3; };
  std::ranges::stable_sort(view.rows, {}, [&](const Row& row) { return std::pair(row.own, rank(row.kind)); });
  return view;
}

std::string column_name(const View& view, std::size_t column) { return view.library->adapters[view.columns[column]]; }

/// 0 where there is none.
template <typename Rows, typename Share>
double highest_share(const Rows& rows, Share share) {
  double highest = 0;
  for (const auto& row : rows) {
    for (const double value : row.*share) highest = std::isnan(value) ? highest : std::max(highest, value);
  }
  return highest;
}

std::string row_title(const View& view, const Row& row) {
  auto title = row.routing->task + (row.own == kNone ? " (no adapter of its own)" : "");
  for (const auto c : largest(row.share, 5)) {
    title += format("\n{} {}{}", percent_text(row.share[c], 1), column_name(view, c), c == row.own ? " (own)" : "");
  }
  return title;
}

void add_column_groups(const View& view, HeatMap& map) {
  const bool clustered = std::ranges::any_of(view.clusters, [](auto label) { return label != kUnclustered; });
  for (std::size_t c = 0; clustered && c < view.columns.size(); ++c) {
    if (c > 0 && view.clusters[c] == view.clusters[c - 1]) continue;
    if (c > 0) map.column_breaks.push_back(static_cast<std::int64_t>(c));
    map.column_groups.emplace_back(static_cast<std::int64_t>(c), view.clusters[c] == kUnclustered ? "" : std::to_string(view.clusters[c]));
  }
}

std::string task_map(const View& view) {
  HeatMap map;
  map.description =
      "Share of the routing weight, tasks by adapters of " + (view.library->method.empty() ? view.library->library : view.library->method);
  const double highest = highest_share(view.rows, &Row::share);
  map.high = highest > 0 ? highest : 1;
  map.square_root = map.values_are_shares = true;
  for (std::size_t c = 0; c < view.columns.size(); ++c) map.columns.push_back(column_name(view, c));
  for (std::size_t r = 0; r < view.rows.size(); ++r) {
    const auto& row = view.rows[r];
    map.rows.push_back(row.routing->task);
    map.values.insert(map.values.end(), row.share.begin(), row.share.end());
    map.row_titles.push_back(row_title(view, row));
    if (row.own != kNone) map.marked.emplace_back(static_cast<std::int64_t>(r), static_cast<std::int64_t>(row.own));
    if (r == 0) continue;
    const auto& above = view.rows[r - 1];
    const bool clusters_differ = row.own != kNone && above.own != kNone && view.clusters[row.own] != view.clusters[above.own];
    if (row.kind != above.kind || (row.own == kNone) != (above.own == kNone) || clusters_differ) {
      map.row_breaks.push_back(static_cast<std::int64_t>(r));
    }
  }
  add_column_groups(view, map);
  return heat_map(map);
}

std::string task_map_caption(const View& view) {
  double own_share = 0;
  std::int64_t with_own = 0, own_first = 0;
  for (const auto& row : view.rows) {
    if (row.own == kNone || std::isnan(row.share[row.own])) continue;
    ++with_own;
    own_share += row.share[row.own];
    own_first += std::ranges::all_of(row.share, [&](double s) { return !(s > row.share[row.own]); }) ? 1 : 0;
  }
  std::string text =
      "Share of the routing weight that each adapter (column) gets on each task (row), averaged over the layers; colours follow its square "
      "root. ";
  if (with_own > 0) {
    text += format(
        "Framed: the task's own adapter. It gets <b>{}</b> on average, where evenly spread weight would be {}, and more than any other "
        "adapter on <b>{} of {}</b> tasks.",
        percent_text(own_share / static_cast<double>(with_own), 1), percent_text(1 / static_cast<double>(view.columns.size()), 1),
        own_first, with_own);
  }
  return text;
}

std::string packed_shares(const View& view, const Row& row) {
  std::string packed;
  for (const auto& layer : row.routing->layers) {
    for (const auto column : view.columns) append_share(packed, layer.share[column]);
  }
  return packed;
}

double highest_layer_share(const LibraryRouting& library) {
  double highest = 0;
  for (const auto& task : library.tasks) highest = std::max(highest, highest_share(task.layers, &LayerShare::share));
  return highest > 0 ? std::min(highest, 1.0) : 1;
}

HeatMap first_layer_map(const View& view, const std::string& id, double high) {
  const auto& row = view.rows.front();
  HeatMap map;
  map.description = "Share of the routing weight, layers by adapters";
  map.id = id;
  map.high = high;
  map.square_root = map.values_are_shares = true;
  for (std::size_t c = 0; c < view.columns.size(); ++c) map.columns.push_back(column_name(view, c));
  for (const auto& layer : row.routing->layers) {
    map.rows.push_back(layer.layer);
    // Rounded as the script will see them, so that coming back to this task gives the same picture.
    for (const auto column : view.columns) {
      map.values.push_back(static_cast<double>(packed_share(layer.share[column])) / 4095);
    }
  }
  map.marked_column = row.own == kNone ? -1 : static_cast<std::int64_t>(row.own);
  add_column_groups(view, map);
  return map;
}

/// Layers by adapters of one task: drawn here for the first, recoloured by the page's script for the one selected.
std::string layer_view(const View& view, const std::string& id) {
  const auto& layers = view.rows.front().routing->layers;
  const auto cells = static_cast<std::int64_t>(layers.size() * view.columns.size());
  if (cells == 0) return "";
  if (cells > kMostLayerCells) {
    return format("<p class=\"note\">{} layers by {} adapters are too many to show layer by layer.</p>", layers.size(),
                  view.columns.size());
  }
  const auto fitting = std::max<std::int64_t>(kMostLayerShares / cells, 1);
  const auto shown = std::min(static_cast<std::int64_t>(view.rows.size()), fitting);
  const double high = highest_layer_share(*view.library);
  nlohmann::json data = {{"high", high},
                         {"layers", nlohmann::json::array()},
                         {"adapters", nlohmann::json::array()},
                         {"own", nlohmann::json::array()},
                         {"shares", nlohmann::json::array()}};
  for (const auto& layer : layers) data["layers"].push_back(layer.layer);
  for (std::size_t c = 0; c < view.columns.size(); ++c) data["adapters"].push_back(column_name(view, c));
  std::string choices;
  for (std::int64_t i = 0; i < shown; ++i) {
    const auto& row = view.rows[static_cast<std::size_t>(i)];
    data["own"].push_back(row.own == kNone ? -1 : static_cast<std::int64_t>(row.own));
    data["shares"].push_back(packed_shares(view, row));
    choices += "<option>" + escape(row.routing->task) + "</option>";
  }
  std::string html = format(
      "<div class=\"layers\" data-layers=\"{}-data\"><label class=\"pick\">Layer by layer, for the task <select "
      "autocomplete=\"off\">{}</select></label>",
      id, choices);
  html += "<div class=\"scroll\">" + heat_map(first_layer_map(view, id + "-map", high)) + "</div>";
  html += format("<script type=\"application/json\" id=\"{}-data\">{}</script></div>", id, script_json(data));
  if (shown < static_cast<std::int64_t>(view.rows.size())) {
    html += format("<p class=\"note\">The first {} of {} tasks; more would make this page too large.</p>", shown, view.rows.size());
  }
  return html;
}

}  // namespace

std::string routing_part(const Results& results, const std::string& prefix) {
  std::string html;
  for (std::size_t i = 0; i < results.routing.size(); ++i) {
    const auto& library = results.routing[i];
    if (library.adapters.empty() || library.tasks.empty()) continue;
    const auto view = view_of(results, library);
    const auto method = std::ranges::find(results.methods, library.method, &Method::name);
    const auto title = method != results.methods.end() ? method->label : format("Library \xE2\x80\x9C{}\xE2\x80\x9D", library.library);
    html += format("<h3>{}: {} adapters</h3>", escape(title), library.adapters.size());
    html += "<figure><div class=\"scroll\">" + task_map(view) + "</div><figcaption>" + task_map_caption(view) + "</figcaption></figure>";
    html += layer_view(view, format("{}-routing{}", prefix, i));
  }
  return html;
}

}  // namespace quiver::report
