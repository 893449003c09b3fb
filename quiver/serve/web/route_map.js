// The map of routes: tokens from left to right, layers from top to bottom; the colour is the favourite, its depth the share.
import { grey, lettersOf, onTheme, shade } from "./colours.js";
import { el, perFrame } from "./dom.js";
import { favouriteAt, shareAt } from "./trace.js";

const gutter = 30, axis = 18;
const widths = [2, 3, 4, 6, 8, 11, 14, 18, 24, 32];

/// A canvas as wide as its box that draws the columns in view, however many tokens there are. `onHover(token, layer)` gets -1, -1 when the
/// pointer leaves.
export class RouteMap {
  constructor({ onHover, onSelect }) {
    this.canvas = el("canvas", { role: "img" });
    this.spacer = el("div", {}, this.canvas);
    this.root = el("div", { class: "route-map", tabIndex: 0, role: "region", "aria-label": "Map of routes, scrollable" }, this.spacer);
    this.trace = null;
    this.zoom = 0;
    this.selected = this.hovered = -1;
    this.only = null;
    this.draw = perFrame(() => this.drawNow());
    this.root.addEventListener("scroll", this.draw);
    new ResizeObserver(this.draw).observe(this.root);
    onTheme(this.draw);
    const place = (event) => {
      const { left, top } = this.canvas.getBoundingClientRect();
      const x = event.clientX - left - gutter, y = event.clientY - top;
      const token = Math.floor((x + this.root.scrollLeft) / this.width), layer = Math.floor(y / this.height);
      const isInside = this.trace && x >= 0 && token < this.trace.tokens.length && layer < this.trace.layers.length;
      return isInside ? [token, layer] : [-1, -1];
    };
    this.canvas.addEventListener("pointermove", (event) => onHover(...place(event)));
    this.canvas.addEventListener("pointerleave", () => onHover(-1, -1));
    this.canvas.addEventListener("click", (event) => { if (place(event)[0] >= 0) onSelect(place(event)[0]); });
  }

  show(trace) {
    this.trace = trace;
    this.selected = this.hovered = -1;
    this.draw();
  }

  /// One step wider or narrower.
  zoomBy(step) {
    const now = widths.indexOf(this.width);
    this.zoom = widths[Math.min(widths.length - 1, Math.max(0, now + step))];
    this.draw();
    requestAnimationFrame(() => this.reveal(this.selected));
  }

  mark(selected, hovered) {
    if (this.selected !== selected) this.reveal(selected);
    this.selected = selected;
    this.hovered = hovered;
    this.draw();
  }

  /// Scrolls so that the token's column is in view.
  reveal(token) {
    if (token < 0 || !this.width) return;
    const left = token * this.width, room = this.root.clientWidth - gutter;
    if (left < this.root.scrollLeft || left + this.width > this.root.scrollLeft + room) this.root.scrollLeft = left - room / 2;
  }

  layOut() {
    const { trace } = this, room = this.root.clientWidth - gutter;
    const fitting = widths.filter((width) => width <= 18 && width * trace.tokens.length <= room).at(-1);
    this.width = this.zoom || Math.max(6, fitting ?? 0);
    this.height = Math.min(18, Math.max(trace.layers.length > 40 ? 7 : 9, this.width));
    this.spacer.style.width = `${gutter + this.width * trace.tokens.length}px`;
    this.spacer.style.height = `${this.height * trace.layers.length + axis}px`;
  }

  drawNow() {
    const { trace, root, canvas } = this;
    if (!trace || root.clientWidth === 0) return;
    const wasAtEnd = root.scrollLeft + root.clientWidth >= root.scrollWidth - 2;
    this.layOut();
    if (wasAtEnd && this.isFollowing) root.scrollLeft = root.scrollWidth;
    const ratio = devicePixelRatio || 1, wide = root.clientWidth, high = this.height * trace.layers.length + axis;
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(root);
    this.drawCells(context, wide);
    this.drawAxes(context, wide, style);
  }

  drawCells(context, wide) {
    const { trace, width, height } = this, offset = this.root.scrollLeft;
    const gap = width >= 6 ? 1 : 0, hasLetters = width >= 11 && height >= 11;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const last = Math.min(trace.tokens.length, Math.ceil((offset + wide - gutter) / width));
    for (let token = Math.floor(offset / width); token < last; ++token) {
      const x = gutter + token * width - offset;
      for (let layer = 0; layer < trace.layers.length; ++layer) {
        const id = favouriteAt(trace, token, layer), isDim = this.only !== null && id !== this.only;
        const { fill, ink } = shade(id < 0 ? grey : trace.colours[id], isDim ? 0 : shareAt(trace, token, layer));
        context.fillStyle = fill;
        context.fillRect(x, layer * height, width - gap, height - gap);
        if (hasLetters && id >= 0 && !isDim) {
          const letters = lettersOf(id);
          context.fillStyle = ink;
          context.font = `600 ${Math.min(11, (width - 2) / (0.72 * letters.length))}px system-ui, sans-serif`;
          context.fillText(letters, x + (width - gap) / 2, (layer + 0.5) * height);
        }
      }
    }
    context.clearRect(0, 0, gutter, height * trace.layers.length + axis);
  }

  drawAxes(context, wide, style) {
    const { trace, width, height } = this, offset = this.root.scrollLeft, bottom = height * trace.layers.length;
    const soft = style.getPropertyValue("--soft"), ink = style.getPropertyValue("--ink");
    context.font = "10.5px system-ui, sans-serif";
    context.fillStyle = soft;
    context.textAlign = "right";
    const layerStep = height >= 11 ? 1 : 5;
    for (let layer = 0; layer < trace.layers.length; layer += layerStep) {
      context.fillText(trace.layers[layer].replace("layer ", ""), gutter - 7, (layer + 0.5) * height);
    }
    context.textAlign = "center";
    const tokenStep = [1, 2, 5, 10, 20, 50, 100, 200].find((step) => step * width >= 34) ?? 500;
    const from = Math.ceil(offset / width / tokenStep) * tokenStep;
    for (let token = from; token < trace.tokens.length; token += tokenStep) {
      const x = gutter + (token + 0.5) * width - offset;
      if (x > wide - 8) break;
      if (x > gutter + 2) context.fillText(String(token + 1), x, bottom + axis / 2 + 1);
    }
    for (const [token, colour, line] of [[this.hovered, soft, 1], [this.selected, ink, 2]]) {
      if (token < 0) continue;
      const x = gutter + token * width - offset;
      if (x < gutter - 1) continue;
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(x - 0.5, 0.5, width, bottom - 1);
    }
  }
}
