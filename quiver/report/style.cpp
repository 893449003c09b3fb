#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/page.h"
#include "quiver/report/svg.h"

namespace quiver::report {
namespace {

using Colour = std::array<double, 3>;

// Lightness rises or falls evenly from end to end, so that the steps are told apart with any colour
// vision, and in print. The lowest step is near the page's background.
constexpr std::array<Colour, 5> kLightPalette = {{{240, 244, 249}, {190, 212, 236}, {110, 165, 214}, {38, 107, 172}, {9, 44, 92}}};
constexpr std::array<Colour, 5> kDarkPalette = {{{30, 37, 48}, {33, 72, 112}, {43, 125, 160}, {112, 188, 178}, {240, 243, 190}}};

std::string colour_at(const std::array<Colour, 5>& anchors, double share) {
  const double place = share * (static_cast<double>(anchors.size()) - 1);
  const auto left = std::min(static_cast<std::size_t>(place), anchors.size() - 2);
  const double weight = place - static_cast<double>(left);
  std::array<std::int64_t, 3> rgb{};
  for (std::size_t c = 0; c < 3; ++c) {
    rgb[c] = std::lround(anchors[left][c] * (1 - weight) + anchors[left + 1][c] * weight);
  }
  return format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

std::string palette(const std::array<Colour, 5>& anchors) {
  std::string css;
  for (int step = 0; step < kPaletteSteps; ++step) {
    css += format(".q{}{{fill:{}}}", step, colour_at(anchors, static_cast<double>(step) / (kPaletteSteps - 1)));
  }
  return css;
}

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--bg:#fff;--panel:#f6f8fa;--ink:#1b2530;--soft:#5b6875;--line:#dde3e9;--accent:#0b62b0;
--better:#0a67ad;--worse:#b8480a;--own:#e06a00;--strong:#0b2e59;--curve:#3b82bd}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
"Noto Sans","Liberation Sans",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 22px 60px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:20px;margin:46px 0 10px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:15.5px;margin:24px 0 8px}
h4{font-size:13.5px;margin:0 0 8px;overflow-wrap:anywhere}
a{color:var(--accent)}
.sub{color:var(--soft);margin:0 0 18px;overflow-wrap:anywhere}
.lead{font-size:17px;line-height:1.55;max-width:78ch;margin:14px 0 16px}
.note,figcaption{color:var(--soft);font-size:13px;max-width:92ch;margin:8px 0 0}
.muted,.se,.ci,.none{color:var(--soft)}
.better{color:var(--better)}.worse{color:var(--worse)}.unsure{color:var(--soft)}
nav{font-size:13.5px;margin:16px 0 0;display:flex;flex-wrap:wrap;gap:4px 16px}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
.facts{list-style:none;display:flex;flex-wrap:wrap;gap:8px;padding:0;margin:0}
.facts li{background:var(--panel);border:1px solid var(--line);border-radius:7px;padding:3px 10px;font-size:13px;color:var(--soft)}
.facts b{color:var(--ink);font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.tall{max-height:560px;overflow-y:auto;border:1px solid var(--line);border-radius:7px}
table.data{border-collapse:separate;border-spacing:0;font-size:13.5px;font-variant-numeric:tabular-nums}
.data th,.data td{padding:6px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
.data thead th{font-weight:600;font-size:12.5px;line-height:1.3;vertical-align:bottom;background:var(--bg)}
.data th.num,.data td.num{text-align:right;white-space:nowrap}
.data thead th.num{white-space:normal}
.data .first{position:sticky;left:0;background:var(--bg);font-weight:500;z-index:1}
.main .first{white-space:nowrap}.tall .first,.differs .first{min-width:min(310px,42vw);max-width:380px;overflow-wrap:anywhere}
.data thead .section{text-align:center;border-bottom:2px solid var(--line);border-left:10px solid var(--bg)}
.data small{font-weight:400;color:var(--soft)}
.data .best,.data .best .mean{font-weight:700}
.data .best .se,.data .best .ci,.data .best .delta{font-weight:400}
.data tbody tr:hover>*{background:var(--panel)}
.main{width:100%}.main th,.main td{padding-left:8px;padding-right:8px}.main .delta,.main .ci{font-size:11.5px;line-height:1.45}
.main .delta{white-space:normal}.main .delta .ci,.main .delta b{white-space:nowrap;font-weight:400}
.oracle th,.oracle .mean{font-style:italic}
.tall thead th{position:sticky;top:0;z-index:2}.tall thead th.first{z-index:3}
.tall .data{width:100%;font-size:12.5px}.tall .data th,.tall .data td{padding-top:3px;padding-bottom:3px}
.data.differs .num{text-align:left;white-space:normal;overflow-wrap:anywhere;max-width:420px}
button.sort{all:unset;cursor:pointer}
button.sort:hover{text-decoration:underline}button.sort:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort] button.sort::after{content:" \25B2";font-size:9px}th[aria-sort=descending] button.sort::after{content:" \25BC"}
.panels h3{margin-top:8px}.panels div svg+svg{margin-top:14px}
.panels>*{min-width:0}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(350px,100%),1fr));gap:22px 26px}
.panels.wide{grid-template-columns:repeat(auto-fill,minmax(min(480px,100%),1fr));margin-top:22px}
svg{display:block;font-family:inherit}
svg.chart{width:100%;height:auto;max-width:470px}
svg text{fill:var(--ink);font-size:12px}
svg .heading{font-size:13px;font-weight:600}
svg .tick{fill:var(--soft);font-size:11px}
svg .small{font-size:10.5px}svg .strong{font-weight:700}svg .oracle{font-style:italic}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.zero{stroke:var(--ink);stroke-width:1.2}
.interval{stroke-width:2}.interval.better{stroke:var(--better)}.interval.worse{stroke:var(--worse)}.interval.unsure{stroke:var(--soft)}
.dot.better{fill:var(--better)}.dot.worse{fill:var(--worse)}.dot.unsure{fill:var(--bg);stroke:var(--soft);stroke-width:1.8}
.hover{fill:transparent}.hover:hover{fill:var(--ink);fill-opacity:.07}
.curve{fill:none;stroke:var(--curve);stroke-width:1.6;stroke-linejoin:round}
.curve.many{stroke-width:.8;stroke-opacity:.38}
.curve.median{stroke:var(--strong);stroke-width:2.6;stroke-opacity:1}
.curve:hover{stroke:var(--own);stroke-width:2.6;stroke-opacity:1}
.leader{stroke:var(--line)}
.cell{shape-rendering:crispEdges}
.break{stroke:var(--bg);stroke-width:2}
.own{fill:none;stroke:var(--own);stroke-width:1.4}.hidden{display:none}
svg .name{font-size:10.5px;fill:var(--soft)}svg .n8{font-size:8.5px}svg .n7{font-size:7.2px}
svg .group{font-size:11px;font-weight:600}
figure{margin:14px 0}
.layers{margin:18px 0 8px}
.pick{display:block;font-size:13.5px;margin:0 0 8px}
select{font:inherit;font-size:13.5px;max-width:100%;padding:3px 6px;border:1px solid var(--line);border-radius:6px;
background:var(--panel);color:var(--ink)}
details{margin:10px 0}
summary{cursor:pointer;font-size:14px;font-weight:500;padding:4px 0}
.cards{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(345px,100%),1fr))}
.card{border:1px solid var(--line);border-radius:9px;padding:12px 14px;min-width:0}
.input{background:var(--panel);border-radius:6px;padding:8px 10px;font-size:13px;margin:0 0 8px;white-space:pre-wrap;overflow-wrap:anywhere}
.samples{width:100%}.samples th{font-weight:500;white-space:nowrap;color:var(--soft)}
.samples th,.samples td{padding:5px 10px 5px 0}
.samples .said{white-space:pre-wrap;overflow-wrap:anywhere}.samples td{width:100%}
.scores{font-size:11.5px;color:var(--soft)}.scores span{white-space:nowrap}
.samples .target th,.samples .target .said{color:var(--ink);font-weight:600}
.samples tr:last-child>*{border-bottom:0}
hr{border:0;border-top:1px dotted var(--line);margin:4px 0}
dl{margin:4px 0}dl>div{display:flex;gap:14px;border-top:1px solid var(--line);padding:4px 0;font-size:13.5px}
dl dl>div:first-child{border-top:0}
dt{flex:0 0 150px;color:var(--soft);overflow-wrap:anywhere}dd{margin:0;min-width:0;overflow-wrap:anywhere;flex:1}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
.run-title{font-size:23px;margin:64px 0 6px}
footer{margin:56px 0 0;color:var(--soft);font-size:12.5px}
@media (max-width:560px){main{padding:18px 14px 40px}h1{font-size:23px}.lead{font-size:15.5px}
.data th,.data td{padding:5px 8px}.data .first{max-width:42vw;min-width:0}.main .first{white-space:normal}dt{flex-basis:100px}dl>div{gap:10px}
.samples th{white-space:normal;min-width:74px}}
)css";

constexpr const char* kDarkStyle = R"css(
:root{--bg:#11161d;--panel:#1a212b;--ink:#e3e9ef;--soft:#97a5b4;--line:#2b3542;--accent:#6cb6ff;
--better:#5db4ef;--worse:#ff9a57;--own:#ff9838;--strong:#f2efc0;--curve:#5aa9dc}
)css";

// Paper is white whatever the screen is; charts and rows are not torn apart.
constexpr const char* kPrintStyle = R"css(
@media print{main{max-width:none;padding:0}nav,.pick select{display:none}
.tall{max-height:none;overflow:visible;border:0}.scroll{overflow:visible}
.data .first,.tall thead th{position:static}
h2,h3,summary{break-after:avoid}figure,svg,.card,tr{break-inside:avoid}svg.heat{max-width:100%;height:auto}
body{font-size:11px}.data{font-size:10px}.data th,.data td{padding:3px 6px}}
)css";

}  // namespace

std::string page_style() {
  return std::string(kStyle) + palette(kLightPalette) + "\n@media screen and (prefers-color-scheme:dark){" + kDarkStyle +
         palette(kDarkPalette) + "}" + kPrintStyle;
}

}  // namespace quiver::report
