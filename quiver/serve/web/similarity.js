// The map of similarities between adapters, ordered by group, and the same as a list.
import { accent, onTheme, shade } from "./colours.js";
import { announce, el, perFrame } from "./dom.js";

const edge = 34, smallest = 3, largest = 22, labelled = 12, labelWidth = 210;
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

/// An element with the map of `{names, values}`; `groupOf` maps a name to its group.
export function similarityView({ names, values }, groupOf) {
  const items = ordered(names, groupOf), count = items.length;
  const at = (row, column) => values[items[row].at]?.[items[column].at];
  let low = Infinity, high = -Infinity;
  for (let row = 0; row < count; ++row) {
    for (let column = 0; column < count; ++column) {
      const value = at(row, column);
      if (row !== column && typeof value === "number") { low = Math.min(low, value); high = Math.max(high, value); }
    }
  }
  const depth = (value) => (high > low ? (value - low) / (high - low) : 1);
  const canvas = el("canvas", { role: "img", "aria-label": `Similarity of ${count} adapters, from ${number(low)} to ${number(high)}. The list below has every value.` });
  const reading = el("p", { class: "reading", id: "similarity-reading", text: "Point at a cell to read it." });
  const box = el("div", {
    class: "similarity", tabIndex: 0, role: "application", "aria-label": "Similarity map. Arrow keys move from cell to cell, Enter lists the row.", "aria-describedby": "similarity-reading",
  }, canvas);
  let cursor = null, cell = 0, left = 0;

  const draw = perFrame(() => {
    const wide = box.clientWidth;
    if (!wide) return;
    const hasLabels = wide > 620 && (wide - labelWidth - edge) / count >= labelled;
    left = hasLabels ? labelWidth + edge : edge;
    cell = Math.min(largest, Math.max(smallest, Math.floor((wide - left) / count)));
    const ratio = devicePixelRatio || 1, width = left + cell * count + 1, height = edge + cell * count + 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d"), style = getComputedStyle(box), gap = cell >= 6 ? 1 : 0;
    const ink = style.getPropertyValue("--ink"), soft = style.getPropertyValue("--soft");
    context.scale(ratio, ratio);
    for (let row = 0; row < count; ++row) {
      for (let column = 0; column < count; ++column) {
        const value = at(row, column);
        context.fillStyle = row === column || typeof value !== "number" ? style.getPropertyValue("--line") : shade(accent, depth(value)).fill;
        context.fillRect(left + column * cell, edge + row * cell, cell - gap, cell - gap);
      }
    }
    context.textBaseline = "middle";
    for (let first = 0; first < count;) {
      let end = first + 1;
      while (end < count && items[end].group === items[first].group) ++end;
      const from = first * cell, size = (end - first) * cell, label = items[first].group || "none";
      context.fillStyle = soft;
      context.font = "600 11px system-ui, sans-serif";
      if (size >= 11 && label.length <= 5) {
        context.textAlign = "center";
        if (size >= 7 * label.length) context.fillText(label, left + from + size / 2, edge / 2);
        context.textAlign = "right";
        context.fillText(label, edge - 8, edge + from + size / 2);
      }
      context.fillRect(left + from, edge - 6, size - 1, 2);
      context.fillRect(left - 6, edge + from, 2, size - 1);
      first = end;
    }
    if (hasLabels) {
      context.textAlign = "right";
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = ink;
      items.forEach(({ name }, row) => context.fillText(name.length > 32 ? `${name.slice(0, 31)}…` : name, left - 12, edge + (row + 0.5) * cell));
    }
    if (cursor) {
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.strokeRect(left + cursor[1] * cell - 1, edge + cursor[0] * cell - 1, cell + 1, cell + 1);
    }
  });

  const words = ([row, column]) => {
    const name = ({ name: text, group }) => (group ? `${text} (${group})` : text);
    return row === column ? name(items[row]) : `${name(items[row])} and ${name(items[column])}: ${number(at(row, column))}`;
  };
  const move = (next) => {
    cursor = next;
    reading.textContent = next ? words(next) : "Point at a cell to read it.";
    draw();
  };
  canvas.addEventListener("pointermove", (event) => {
    const place = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - place.left - left) / cell), row = Math.floor((event.clientY - place.top - edge) / cell);
    move(row >= 0 && row < count && column >= 0 && column < count ? [row, column] : null);
  });
  canvas.addEventListener("pointerleave", () => move(null));
  box.addEventListener("focus", () => { if (!cursor && count) move([0, Math.min(1, count - 1)]); });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step || !count) return;
    event.preventDefault();
    const now = cursor ?? [0, 0];
    move(now.map((value, i) => Math.min(count - 1, Math.max(0, value + step[i]))));
    announce(words(cursor));
  });
  new ResizeObserver(draw).observe(box);
  onTheme(draw);

  const legend = el("p", { class: "scale" }, number(low), el("span", { "aria-hidden": "true" }, ...Array.from({ length: 13 }, (_, i) => {
    const step = el("i"), paint = () => { step.style.backgroundColor = shade(accent, i / 12).fill; };
    paint();
    onTheme(paint);
    return step;
  })), number(high));
  const list = listOf(items, at);
  canvas.addEventListener("click", () => { if (cursor) list.show(cursor[0]); });
  box.addEventListener("keydown", (event) => { if (event.key === "Enter" && cursor) list.show(cursor[0]); });
  return el("div", { class: "similarity-grid" }, el("div", {}, box, legend, reading), list.root);
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
