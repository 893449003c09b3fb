// The map of similarities between adapters, ordered by group, and the same as a list.
import { accent, onTheme, shade } from "./colours.js";
import { announce, el, perFrame } from "./dom.js";

/// Pixels: the margin with the groups, the sizes of a cell, the least size of a cell beside a name, the room for names.
const edge = 34, smallest = 3, largest = 22, named = 12, nameWidth = 210;
const mostLetters = 32;
const number = (value) => (typeof value === "number" ? value.toFixed(4) : "–");

/// Adapters in the order of the map: by group, then by name; those without a group are last.
function ordered(names, groupOf) {
  const key = (name) => [groupOf.get(name) ? 0 : 1, groupOf.get(name) ?? "", name];
  return names.map((name, at) => ({ name, at, group: groupOf.get(name) ?? "" })).sort((a, b) => {
    const x = key(a.name), y = key(b.name);
    for (let i = 0; i < 3; ++i) if (x[i] !== y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
  });
}

/// The map as a canvas in a box that takes the keyboard. `onMove(words)` gets what the cursor points at, "" for nothing; `onChoose(item)` the
/// row of a click or of Enter.
class SimilarityMap {
  constructor(items, at, { onMove, onChoose }) {
    Object.assign(this, { items, at, onMove });
    this.cursor = null;
    this.findRange();
    this.canvas = el("canvas", {
      role: "img", "aria-label": `Similarity of ${items.length} adapters, from ${number(this.low)} to ${number(this.high)}. The list beside it has every value.`,
    });
    this.root = el("div", {
      class: "similarity", tabIndex: 0, role: "application", "aria-describedby": "similarity-reading",
      "aria-label": "Similarity map. Arrow keys move from cell to cell, Enter lists the row.",
    }, this.canvas);
    this.draw = perFrame(() => this.drawNow());
    this.canvas.addEventListener("pointermove", (event) => this.move(this.cellOf(event)));
    this.canvas.addEventListener("pointerleave", () => this.move(null));
    this.canvas.addEventListener("click", () => { if (this.cursor) onChoose(this.cursor[0]); });
    this.root.addEventListener("focus", () => { if (!this.cursor) this.move([0, Math.min(1, items.length - 1)]); });
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.cursor) onChoose(this.cursor[0]);
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      this.move((this.cursor ?? [0, 0]).map((value, i) => Math.min(items.length - 1, Math.max(0, value + step[i]))));
      announce(this.words());
    });
    new ResizeObserver(this.draw).observe(this.root);
  }

  /// The least and the largest similarity of two adapters.
  findRange() {
    this.low = Infinity;
    this.high = -Infinity;
    for (let row = 0; row < this.items.length; ++row) {
      for (let column = 0; column < this.items.length; ++column) {
        const value = this.at(row, column);
        if (row === column || typeof value !== "number") continue;
        this.low = Math.min(this.low, value);
        this.high = Math.max(this.high, value);
      }
    }
  }

  cellOf(event) {
    const place = this.canvas.getBoundingClientRect(), count = this.items.length;
    const column = Math.floor((event.clientX - place.left - this.left) / this.cell), row = Math.floor((event.clientY - place.top - edge) / this.cell);
    return row >= 0 && row < count && column >= 0 && column < count ? [row, column] : null;
  }

  move(cursor) {
    this.cursor = cursor;
    this.onMove(this.words());
    this.draw();
  }

  words() {
    if (!this.cursor) return "";
    const [row, column] = this.cursor, name = ({ name: text, group }) => (group ? `${text} (${group})` : text);
    return row === column ? name(this.items[row]) : `${name(this.items[row])} and ${name(this.items[column])}: ${number(this.at(row, column))}`;
  }

  drawNow() {
    const wide = this.root.clientWidth, count = this.items.length;
    if (!wide) return;
    const hasNames = wide > 620 && (wide - nameWidth - edge) / count >= named;
    this.left = hasNames ? nameWidth + edge : edge;
    this.cell = Math.min(largest, Math.max(smallest, Math.floor((wide - this.left) / count)));
    const ratio = devicePixelRatio || 1, width = this.left + this.cell * count + 1, height = edge + this.cell * count + 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d"), style = getComputedStyle(this.root);
    context.scale(ratio, ratio);
    context.textBaseline = "middle";
    this.drawCells(context, style.getPropertyValue("--line"));
    this.drawGroups(context, style.getPropertyValue("--soft"));
    if (hasNames) this.drawNames(context, style.getPropertyValue("--ink"));
    if (!this.cursor) return;
    context.strokeStyle = style.getPropertyValue("--ink");
    context.lineWidth = 2;
    context.strokeRect(this.left + this.cursor[1] * this.cell - 1, edge + this.cursor[0] * this.cell - 1, this.cell + 1, this.cell + 1);
  }

  drawCells(context, none) {
    const { cell, left } = this, gap = cell >= 6 ? 1 : 0, range = this.high - this.low;
    for (let row = 0; row < this.items.length; ++row) {
      for (let column = 0; column < this.items.length; ++column) {
        const value = this.at(row, column);
        context.fillStyle = row === column || typeof value !== "number" ? none : shade(accent, range > 0 ? (value - this.low) / range : 1).fill;
        context.fillRect(left + column * cell, edge + row * cell, cell - gap, cell - gap);
      }
    }
  }

  /// A line along each group, above and to the left of the cells, with its name where there is room.
  drawGroups(context, colour) {
    const { items, cell, left } = this;
    context.fillStyle = colour;
    context.font = "600 11px system-ui, sans-serif";
    for (let first = 0, end = 0; first < items.length; first = end) {
      end = first + 1;
      while (end < items.length && items[end].group === items[first].group) ++end;
      const from = first * cell, size = (end - first) * cell, label = items[first].group || "none";
      if (size >= 11 && label.length <= 5) {
        context.textAlign = "center";
        if (size >= 7 * label.length) context.fillText(label, left + from + size / 2, edge / 2);
        context.textAlign = "right";
        context.fillText(label, edge - 8, edge + from + size / 2);
      }
      context.fillRect(left + from, edge - 6, size - 1, 2);
      context.fillRect(left - 6, edge + from, 2, size - 1);
    }
  }

  drawNames(context, colour) {
    context.textAlign = "right";
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colour;
    this.items.forEach(({ name }, row) => {
      context.fillText(name.length > mostLetters ? `${name.slice(0, mostLetters - 1)}…` : name, this.left - 12, edge + (row + 0.5) * this.cell);
    });
  }
}

/// The colours of the map from its least to its largest value.
function paintScale(scale, { low, high }) {
  const steps = Array.from({ length: 13 }, (_, i) => {
    const step = el("i");
    step.style.backgroundColor = shade(accent, i / 12).fill;
    return step;
  });
  scale.replaceChildren(number(low), el("span", { "aria-hidden": "true" }, ...steps), number(high));
}

// One map is shown at a time.
let repaint = () => {};
onTheme(() => repaint());

/// An element with the map of `{names, values}` and the same as a list; `groupOf` maps a name to its group.
export function similarityView({ names, values }, groupOf) {
  const items = ordered(names, groupOf), hint = "Point at a cell to read it.";
  const at = (row, column) => values[items[row].at]?.[items[column].at];
  const reading = el("p", { class: "reading", id: "similarity-reading", text: hint }), list = listOf(items, at);
  const map = new SimilarityMap(items, at, { onMove: (words) => { reading.textContent = words || hint; }, onChoose: list.show });
  const scale = el("p", { class: "scale" });
  repaint = () => { map.draw(); paintScale(scale, map); };
  repaint();
  return el("div", { class: "similarity-grid" }, el("div", {}, map.root, scale, reading), list.root);
}

/// All similarities of one adapter, the largest first: `{root, show(item)}`.
function listOf(items, at) {
  const select = el("select", {}, ...items.map(({ name }, i) => el("option", { value: String(i), text: name })));
  const body = el("tbody");
  const draw = () => {
    const row = Number(select.value);
    const others = items.map((item, column) => ({ ...item, column })).filter(({ column }) => column !== row);
    others.sort((a, b) => (at(row, b.column) ?? -2) - (at(row, a.column) ?? -2));
    body.replaceChildren(...others.map(({ name, group, column }) => el("tr", {},
      el("th", { scope: "row", text: name }), el("td", { text: group || "–" }), el("td", { class: "num", text: number(at(row, column)) }))));
  };
  select.addEventListener("change", draw);
  draw();
  const root = el("div", {}, el("label", { class: "field row" }, "Similar to", select),
    el("div", { class: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Similarities of one adapter" }, el("table", { class: "data" },
      el("thead", {}, el("tr", {}, ...["Adapter", "Group", "Similarity"].map((text, i) => el("th", { scope: "col", text, class: i === 2 ? "num" : "" })))), body)));
  return { root, show: (item) => { select.value = String(item); draw(); } };
}
