#include "quiver/report/trace_view.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/module_path.h"
#include "quiver/report/assets.h"
#include "quiver/report/format.h"
#include "quiver/report/page.h"
#include "quiver/report/view.h"

namespace quiver::report {
namespace {

using nlohmann::json;

/// Adapters that get a colour and a letter of their own: those of the largest shares.
constexpr std::size_t kNamed = 12;
constexpr const char* kLetters = "ABCDEFGHIJKL";
/// Hues that are told apart on light and dark backgrounds; ANSI's 256 colours and CSS.
constexpr int kAnsi[kNamed] = {33, 208, 35, 160, 99, 136, 205, 44, 148, 69, 172, 246};
constexpr const char* kCss[kNamed] = {"#2f7fd0", "#e8862e", "#35a35a", "#d1453b", "#8b6bd6", "#a3803f",
                                      "#d868b8", "#2aa9b8", "#9ab32e", "#5b8def", "#c98b1d", "#8d99a6"};

struct Trace {
  std::vector<std::string> adapters, tokens, layers;     // layers by name, in order
  std::vector<std::vector<std::vector<double>>> weight;  // [layer][token][adapter], means over the layer's projections
  std::vector<std::size_t> named;                        // the adapters of the largest shares, largest first
  std::vector<double> shares;
};

Trace parse(const json& document) {
  if (!document.is_object() || !document.contains("quiver_trace"))
    fail(ErrorKind::kBadFormat, "not a trace: it has no member 'quiver_trace'");
  if (document.at("quiver_trace") != 1)
    fail(ErrorKind::kUnsupported, "a trace of version {}; this program reads version 1", document.at("quiver_trace").dump());
  Trace trace;
  try {
    trace.adapters = document.at("adapters").get<std::vector<std::string>>();
    for (const auto& token : document.at("tokens")) trace.tokens.push_back(token.at("text"));
    trace.shares = document.at("statistics").at("shares").get<std::vector<double>>();
    std::map<std::int64_t, std::pair<std::string, double>> counts;  // layer number -> name, projections
    const auto layer_of = [](const json& projection) { return block_of(projection.at("path").get<std::string>()); };
    for (const auto& projection : document.at("projections")) {
      const auto layer = layer_of(projection);
      auto& [name, count] = counts[layer.number];
      name = layer.name;
      count += 1;
    }
    std::map<std::int64_t, std::size_t> place;  // of a layer's number
    for (const auto& [number, layer] : counts) {
      place[number] = trace.layers.size();
      trace.layers.push_back(layer.first);
    }
    const std::vector<double> none(trace.adapters.size(), 0.0);
    trace.weight.assign(trace.layers.size(), std::vector(trace.tokens.size(), none));
    for (const auto& projection : document.at("projections")) {
      const auto layer = layer_of(projection);
      const double count = counts.at(layer.number).second;
      for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
        for (const auto& choice : projection.at("choices").at(t)) {
          trace.weight[place.at(layer.number)][t].at(choice.at(0).get<std::size_t>()) += choice.at(1).get<double>() / count;
        }
      }
    }
    trace.shares.at(trace.adapters.empty() ? 0 : trace.adapters.size() - 1);
  } catch (const json::exception& error) {
    fail(ErrorKind::kBadFormat, "not a trace: {}", error.what());
  } catch (const std::logic_error& error) {
    fail(ErrorKind::kBadFormat, "not a trace: an index or a layer is out of range ({})", error.what());
  }
  trace.shares.resize(trace.adapters.size());
  trace.named = largest(trace.shares, kNamed);
  return trace;
}

std::size_t favourite(const std::vector<double>& weights) {
  return static_cast<std::size_t>(std::ranges::max_element(weights) - weights.begin());
}

/// The letter of an adapter, coloured; a dot for those without.
std::string letter(const Trace& trace, std::size_t adapter, bool has_colour) {
  const auto found = std::ranges::find(trace.named, adapter);
  if (found == trace.named.end()) return "\u00B7";
  const auto i = static_cast<std::size_t>(found - trace.named.begin());
  if (!has_colour) return std::string(1, kLetters[i]);
  return format("\x1b[38;5;{}m{}\x1b[0m", kAnsi[i], kLetters[i]);
}

std::string figures_line(const json& document) {
  const auto& s = document.at("statistics");
  auto line = format("entropy {} of {}, margin {}", number_text(s.at("entropy"), 2), number_text(s.at("largest_entropy"), 2),
                     number_text(s.at("margin"), 2));
  if (s.contains("agreement") && s.at("agreement").is_number()) line += ", agreement of projections " + percent_text(s.at("agreement"));
  return line;
}

std::string token_lines(const Trace& trace, const TraceTextOptions& options) {
  const auto layers = static_cast<std::int64_t>(trace.layers.size());
  const auto room = std::clamp<std::int64_t>(options.width - layers - 3, 8, 24);  // for the token
  const auto shown = std::min<std::int64_t>(layers, std::max<std::int64_t>(options.width - room - 3, 1));
  std::string text = format("\nTokens, and for each of {} layers the adapter that its projections favour:\n\n",
                            shown < layers ? format("the first {} of {}", shown, layers) : std::to_string(layers));
  for (std::size_t t = 0; t < trace.tokens.size(); ++t) {
    auto name = printable(trace.tokens[t]);
    name = shorten(name.empty() ? " " : name, room);
    text += "  " + name + std::string(static_cast<std::size_t>(std::max<std::int64_t>(room - display_width(name), 0)), ' ') + " ";
    for (std::int64_t l = 0; l < shown; ++l)
      text += letter(trace, favourite(trace.weight[static_cast<std::size_t>(l)][t]), options.has_colour);
    text += "\n";
  }
  return text;
}

/// The shares of each layer, token and adapter of `columns`.
std::string packed(const Trace& trace, const std::vector<std::size_t>& columns) {
  std::string text;
  for (const auto& layer : trace.weight) {
    for (const auto& token : layer) {
      for (const auto n : columns) append_share(text, token[n]);
    }
  }
  return text;
}

/// A token to click on; line breaks are shown, and made.
std::string token_html(const std::string& token) {
  std::string text, breaks;
  for (const char c : token) {
    if (c == '\n') breaks += "<br>";
    text += c == '\n' ? std::string("\u21B5") : std::string(1, c);
  }
  return "<button class=\"tok\">" + (text.empty() ? "\u00B7" : escape(text)) + "</button>" + breaks;
}

}  // namespace

std::string render_trace_text(const json& document, const TraceTextOptions& options) {
  const auto trace = parse(document);
  auto text = format("{} over {} adapters, {} tokens: {}\n\n", printable(document.value("method", "?")), trace.adapters.size(),
                     trace.tokens.size(), figures_line(document));
  const auto name_width = std::clamp<std::int64_t>(options.width - 14, 8, 46);
  const auto bar_width = static_cast<double>(std::clamp<std::int64_t>(options.width - 60, 0, 40));
  for (const auto n : trace.named) {
    if (trace.shares[n] < 0.0005) break;
    std::string bar;
    const auto filled = static_cast<int>(std::lround(bar_width * trace.shares[n]));
    for (int i = 0; i < filled; ++i) bar += "\u2588";
    const auto name = shorten(printable(trace.adapters[n]), name_width);
    const std::string space(static_cast<std::size_t>(std::max<std::int64_t>(name_width - display_width(name), 0)), ' ');
    text += format("  {} {}{} {:>6} {}\n", letter(trace, n, options.has_colour), name, space, percent_text(trace.shares[n], 1), bar);
  }
  if (options.every_token) text += token_lines(trace, options);
  return text;
}

std::string render_trace_page(const json& document, const std::string& given_title) {
  const auto trace = parse(document);
  auto html = format("<p class=\"sub\">{} over {} adapters of {}: {}</p>", escape(document.value("what", "")), trace.adapters.size(),
                     escape(document.value("base", "")), escape(figures_line(document)));
  html += "<ul class=\"legend\">";
  json names = json::array(), colours = json::array();
  for (std::size_t i = 0; i < trace.named.size(); ++i) {
    const auto& name = trace.adapters[trace.named[i]];
    names.push_back(name);
    colours.push_back(kCss[i]);
    html += format("<li><i style=\"background:{}\"></i>{} <span class=\"muted\">{}</span></li>", kCss[i], escape(name),
                   percent_text(trace.shares[trace.named[i]], 1));
  }
  html += "</ul><label class=\"pick\">Coloured by the adapter favoured at <select id=\"layer\"><option value=\"\">all layers</option>";
  for (std::size_t l = 0; l < trace.layers.size(); ++l) html += format("<option value=\"{}\">{}</option>", l, escape(trace.layers[l]));
  html += "</select></label><div class=\"text\">";
  for (const auto& token : trace.tokens) html += token_html(token);
  html += "</div><p class=\"note\">A click on a token, or the arrow keys, show its weights below.";
  if (trace.named.size() < trace.adapters.size()) html += format(" The {} adapters of the largest shares are shown.", trace.named.size());
  html += "</p><h2 id=\"which\"></h2><p class=\"note\">Weight in percent, the mean over a layer's projections.</p>";
  html += "<div class=\"scroll\"><table class=\"data weights\"><thead><tr><th></th>";
  for (const auto n : trace.named) html += "<th class=\"slant\">" + escape(trace.adapters[n]) + "</th>";
  html += "</tr></thead><tbody id=\"weights\"></tbody></table></div>";
  const auto data = script_json({{"adapters", names},
                                 {"colours", colours},
                                 {"layers", trace.layers},
                                 {"tokens", trace.tokens.size()},
                                 {"weights", packed(trace, trace.named)}});
  return html_page(given_title.empty() ? "Routes of " + document.value("method", "?") : given_title, kTraceCss, html,
                   "<script type=\"application/json\" id=\"trace\">" + data + "</script>", kTraceJs);
}

}  // namespace quiver::report
