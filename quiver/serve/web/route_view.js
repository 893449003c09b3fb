// A trace as a person reads it: adapters by share, the map, the chosen token by layer, and all of it as a table.
import { grey, lettersOf } from "./colours.js";
import { el, integer, perFrame, percent, plural, visible } from "./dom.js";
import { RouteMap } from "./route_map.js";
import { choicesAt, favouriteAt, favouriteOf, sharesOf } from "./trace.js";

const fewShares = 8, tablePage = 100;

export const nameOf = (trace, adapter) => (adapter < 0 ? "no adapter" : trace.adapters[adapter]);

/// The letters of an adapter on its colour.
export const badge = (trace, adapter) => el("span", {
  class: `badge c${adapter < 0 ? grey : trace.colours[adapter]}`, text: adapter < 0 ? "–" : lettersOf(adapter), "aria-hidden": "true",
});

export class RouteView {
  /// `onSave` is called by the button that saves the trace.
  constructor({ onSave }) {
    this.tokens = null;
    this.selected = -1;
    this.map = new RouteMap({
      onHover: (token, layer) => this.hover(token, layer),
      onSelect: (token) => this.tokens.select(token, true),
    });
    this.title = el("h3");
    this.figures = el("p", { class: "sub" });
    this.shares = el("ol", { class: "shares" });
    this.all = el("button", { type: "button", class: "link", on: { click: () => { this.showsAll = !this.showsAll; this.drawShares(); } } });
    this.reading = el("p", { class: "reading" });
    this.detail = el("div", { class: "token-detail" });
    this.table = el("div", { class: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Table of routes" });
    this.pager = el("div", { class: "pager" });
    this.tableBox = el("details", {}, el("summary", { text: "The map as a table" }), this.pager, this.table);
    this.tableBox.addEventListener("toggle", () => this.drawTable());
    const zoom = (text, label, step) => el("button", {
      type: "button", class: "small", text, "aria-label": label, on: { click: () => this.map.zoomBy(step) },
    });
    this.tools = el("div", { class: "tools" }, zoom("−", "Narrower columns", -1), zoom("+", "Wider columns", 1),
      el("button", { type: "button", class: "small", text: "Save as JSON", on: { click: onSave } }));
    this.extra = el("div", { class: "extra" });
    this.root = el("section", { class: "routes", "aria-label": "Routes" },
      el("div", { class: "routes-head" }, el("div", {}, this.title, this.figures), this.tools), this.extra,
      el("div", { class: "routes-grid" },
        el("div", { class: "shares-box" }, el("h4", { text: "Favoured adapters" }), this.shares, this.all),
        el("div", { class: "map-box" }, el("h4", { text: "Favourite by token and layer" }), this.map.root, this.reading)),
      this.detail, this.tableBox);
    this.drawSlow = this.throttled(() => this.drawSummary(), 250);
    this.drawSoon = perFrame(() => this.map.draw());
  }

  throttled(draw, milliseconds) {
    let timer = 0;
    return () => {
      if (timer === 0) timer = setTimeout(() => { timer = 0; draw(); }, milliseconds);
    };
  }

  /// Shows a trace; `tokens` is the TokenText that shows its tokens.
  show(trace, tokens, title) {
    if (this.tokens && this.tokens !== tokens) this.tokens.dimAllBut(null);
    const isOther = this.trace?.adapters.join("\n") !== trace.adapters.join("\n");
    this.trace = trace;
    this.tokens = tokens;
    this.title.textContent = title;
    if (isOther) { this.only = null; this.showsAll = false; }
    this.page = 0;
    this.map.only = this.only;
    tokens.dimAllBut(this.only);
    this.selected = Math.min(tokens.selected, trace.tokens.length - 1);
    this.map.show(trace);
    this.drawSummary();
    this.select(this.selected);
  }

  /// The trace has grown.
  grow() {
    this.map.isFollowing = true;
    this.drawSoon();
    this.drawSlow();
  }

  select(token) {
    this.selected = token;
    this.map.mark(token, -1);
    this.drawDetail();
  }

  hover(token, layer = -1) {
    const { trace } = this;
    this.map.mark(this.selected, token);
    if (token < 0 || token >= trace.tokens.length) { this.reading.textContent = this.hint(); return; }
    const what = `Token ${integer(token + 1)} “${visible(trace.tokens[token])}”`;
    if (layer < 0) {
      const { adapter, share } = favouriteOf(trace, token);
      this.reading.textContent = `${what}: ${nameOf(trace, adapter)} at ${percent(share)} of the layers`;
      return;
    }
    const choices = choicesAt(trace, token, layer).map(([id, share]) => `${nameOf(trace, id)} ${percent(share)}`);
    this.reading.textContent = `${what}, ${trace.layers[layer]}: ${choices.join(" · ") || "no adapter"}`;
  }

  hint() { return this.trace.tokens.length ? "Point at a cell or choose a token to read it." : "The first token is on its way."; }

  drawSummary() {
    const { trace } = this;
    const distinct = sharesOf(trace).filter(([adapter]) => adapter >= 0).length;
    this.figures.textContent = `${plural(trace.tokens.length, "token")} × ${plural(trace.layers.length, "layer")}, ` +
      `${integer(distinct)} of ${plural(trace.adapters.length, "adapter")} favoured somewhere`;
    this.drawShares();
    if (!this.reading.textContent || this.map.hovered < 0) this.reading.textContent = this.hint();
    const first = sharesOf(trace).slice(0, 3).map(([adapter, share]) => `${nameOf(trace, adapter)} ${percent(share)}`);
    this.map.canvas.setAttribute("aria-label", `Map of ${this.figures.textContent}. ${first.join(", ")}. The table below has every cell.`);
    if (this.selected < 0) this.drawDetail();
    if (this.tableBox.open) this.drawTable();
  }

  drawShares() {
    const { trace } = this, rows = sharesOf(trace), shown = this.showsAll ? rows : rows.slice(0, fewShares);
    const most = rows[0]?.[1] ?? 1;
    // Rows are kept while the trace grows, so that a row that has the focus keeps it.
    while (this.shares.children.length > shown.length) this.shares.lastChild.remove();
    shown.forEach(([adapter, share], i) => {
      const row = this.shares.children[i] ?? this.shares.appendChild(this.shareRow());
      row.adapter = adapter;
      const [mark, name, bar, number] = row.firstChild.children;
      mark.replaceWith(badge(trace, adapter));
      name.textContent = nameOf(trace, adapter);
      bar.className = `bar c${adapter < 0 ? grey : trace.colours[adapter]}`;
      bar.firstChild.style.width = `${(100 * share) / most}%`;
      number.textContent = percent(share, 1);
      row.firstChild.setAttribute("aria-pressed", String(this.only === adapter));
    });
    this.all.hidden = rows.length <= fewShares;
    this.all.textContent = this.showsAll ? "Show fewer" : `Show all ${rows.length}`;
  }

  shareRow() {
    const row = el("li", {}, el("button", { type: "button", title: "Show this adapter alone" },
      el("span"), el("span", { class: "name" }), el("span", { class: "bar" }, el("i")), el("span", { class: "number" })));
    row.firstChild.addEventListener("click", () => {
      this.only = this.only === row.adapter ? null : row.adapter;
      this.map.only = this.only;
      this.map.draw();
      this.tokens.dimAllBut(this.only);
      this.drawShares();
    });
    return row;
  }

  /// The chosen token: its adapters by layer.
  drawDetail() {
    const { trace, selected } = this;
    this.detail.hidden = selected < 0;
    if (selected < 0) return;
    const { adapter, share } = favouriteOf(trace, selected), count = Math.round(share * trace.layers.length);
    const layers = trace.layers.map((name, layer) => {
      const choices = choicesAt(trace, selected, layer), [first] = choices;
      const words = choices.map(([id, weight]) => `${nameOf(trace, id)} ${percent(weight)}`).join(", ");
      return el("li", { title: `${name}: ${words || "no adapter"}` },
        el("span", { class: "layer", text: name.replace("layer ", ""), "aria-label": name, role: "img" }),
        badge(trace, first ? first[0] : -1),
        el("span", { class: "stack", "aria-hidden": "true" }, ...choices.map(([id, weight]) => {
          const part = el("i", { class: `c${trace.colours[id]}` });
          part.style.width = percent(weight, 1).replace(" ", "");
          return part;
        })),
        el("span", { class: "number", text: first ? percent(first[1]) : "–" }), el("span", { class: "hidden", text: words }));
    });
    this.detail.replaceChildren(
      el("h4", {}, `Token ${integer(selected + 1)} `, el("q", { text: visible(trace.tokens[selected]) })),
      el("div", { class: "named sub" }, badge(trace, adapter), el("p", {}, el("span", { class: "name", text: nameOf(trace, adapter) }),
        ` is the favourite at ${count} of ${plural(trace.layers.length, "layer")}. Bars are shares of the routing weight.`)),
      el("ol", { class: "layers" }, ...layers));
  }

  drawTable() {
    if (!this.tableBox.open) return;
    const { trace } = this, pages = Math.max(1, Math.ceil(trace.tokens.length / tablePage));
    const from = this.page * tablePage, until = Math.min(trace.tokens.length, from + tablePage);
    const turn = (text, step, isOff) => el("button", {
      type: "button", class: "small", text, disabled: isOff, on: { click: () => { this.page += step; this.drawTable(); } },
    });
    this.pager.replaceChildren(...(pages > 1 ? [turn("Earlier", -1, this.page === 0),
      ` tokens ${integer(from + 1)} to ${integer(until)} of ${integer(trace.tokens.length)} `, turn("Later", 1, this.page + 1 >= pages)] : []));
    const rows = [];
    for (let token = from; token < until; ++token) {
      const { adapter, share } = favouriteOf(trace, token);
      rows.push(el("tr", {}, el("th", { scope: "row", text: integer(token + 1) }), el("td", { class: "text", text: visible(trace.tokens[token]) }),
        el("td", { class: "name", text: nameOf(trace, adapter) }), el("td", { class: "num", text: percent(share) }),
        ...trace.layers.map((_, layer) => {
          const [first] = choicesAt(trace, token, layer);
          return el("td", { text: first ? `${lettersOf(favouriteAt(trace, token, layer))} ${Math.round(100 * first[1])}` : "–" });
        })));
    }
    const heads = ["Token", "Text", "Favourite", "Layers", ...trace.layers.map((name) => name.replace("layer ", ""))];
    this.table.replaceChildren(el("table", { class: "data dense" },
      el("caption", { class: "hidden", text: "By token: the adapter that most layers favour and the share of layers that do; then by layer its favourite and the favourite's share in percent" }),
      el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows)));
  }
}
