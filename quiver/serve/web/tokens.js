// An answer or a prompt as tokens: buttons that are underlined in the colour of the adapter that most layers favour.
import { grey, lettersOf } from "./colours.js";
import { el } from "./dom.js";
import { favouriteOf } from "./trace.js";

/// A run of tokens ends with a line after so many, so that the browser can leave out runs that are not in view.
const runTokens = 200;

/// Fills `box` with tokens. `onSelect(token)` and `onHover(token or -1)` are told what a person points at.
export class TokenText {
  constructor(box, label, { onSelect, onHover }) {
    this.box = box;
    this.spans = [];
    this.selected = -1;
    this.only = null;
    this.onSelect = onSelect;
    box.classList.add("tokens");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${label}. Arrow keys move from token to token.`);
    const tokenOf = (event) => event.target.closest?.(".tok")?.index ?? -1;
    box.addEventListener("click", (event) => { if (tokenOf(event) >= 0) this.select(tokenOf(event), true); });
    box.addEventListener("focusin", (event) => { if (tokenOf(event) >= 0) this.select(tokenOf(event)); });
    box.addEventListener("pointerover", (event) => onHover(tokenOf(event)));
    box.addEventListener("pointerleave", () => onHover(-1));
    box.addEventListener("keydown", (event) => this.onKey(event));
  }

  /// Appends the tokens of the trace that are not there yet.
  append(trace) {
    for (let token = this.spans.length; token < trace.tokens.length; ++token) {
      if (!this.run) this.beginRun();
      const text = trace.tokens[token];
      const span = el("span", { text: text === "" ? "·" : text, role: "button", tabIndex: token === 0 ? 0 : -1 });
      span.index = token;
      if (text === "") span.setAttribute("aria-label", "token without text");
      this.spans.push(span);
      this.paintToken(trace, token);
      this.run.append(span);
      if (token - this.runStart >= runTokens && text.endsWith("\n")) this.run = null;
    }
  }

  beginRun() {
    this.run = el("div", { class: "run" });
    this.runStart = this.spans.length;
    this.box.append(this.run);
  }

  /// Text that belongs to no token.
  appendText(text) {
    if (!this.run) this.beginRun();
    this.run.append(text);
  }

  paintToken(trace, token) {
    const span = this.spans[token], text = trace.tokens[token], { adapter, share } = favouriteOf(trace, token);
    span.adapter = adapter;
    const broken = text.includes("\n") && text.trim() === "" ? " break" : text === "" ? " bare" : "";
    const dim = this.only !== null && adapter !== this.only ? " dim" : "";
    span.className = `tok c${adapter < 0 ? grey : trace.colours[adapter]}${broken}${dim}`;
    span.style.setProperty("--s", `${Math.round(25 + 75 * share)}%`);
    span.dataset.letter = adapter < 0 ? "" : lettersOf(adapter);
  }

  /// Colours all tokens anew, as another trace of the same tokens has them.
  repaint(trace) {
    this.spans.forEach((_, token) => this.paintToken(trace, token));
    if (this.selected >= 0) this.mark(this.selected, true);
  }

  /// Dims all tokens but those of one adapter; null dims none.
  dimAllBut(adapter) {
    this.only = adapter;
    for (const span of this.spans) span.classList.toggle("dim", adapter !== null && span.adapter !== adapter);
  }

  mark(token, isOn) {
    const span = this.spans[token];
    span.classList.toggle("on", isOn);
    span.tabIndex = isOn ? 0 : -1;
    if (isOn) span.setAttribute("aria-current", "true");
    else span.removeAttribute("aria-current");
  }

  select(token, isTold = token !== this.selected) {
    if (token !== this.selected) {
      if (this.selected >= 0) this.mark(this.selected, false);
      else if (this.spans[0]) this.spans[0].tabIndex = -1;
      this.selected = token;
      this.mark(token, true);
    }
    if (isTold) this.onSelect(token);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const now = event.target.index ?? -1, last = this.spans.length - 1;
    if (now < 0) return;
    let next;
    if (event.key === "ArrowRight") next = Math.min(last, now + 1);
    else if (event.key === "ArrowLeft") next = Math.max(0, now - 1);
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else if (event.key === "ArrowDown") next = this.inLine(now, 1);
    else if (event.key === "ArrowUp") next = this.inLine(now, -1);
    else if (event.key === "Enter" || event.key === " ") next = now;
    else return;
    event.preventDefault();
    this.spans[next].focus();
    this.select(next, true);
  }

  /// The token nearest below (step 1) or above (step -1) this one.
  inLine(now, step) {
    // A token with a line break before its word has a box in each line: the last one is where the word is.
    const placeOf = (token) => [...this.spans[token].getClientRects()].at(-1);
    const { left, top } = placeOf(now);
    let best = now, bestDistance = Infinity, line = null;
    for (let token = now + step; token >= 0 && token < this.spans.length; token += step) {
      const place = placeOf(token);
      if ((place.top - top) * step < 4) continue;
      line ??= place.top;
      if (Math.abs(place.top - line) > 4) break;
      if (Math.abs(place.left - left) < bestDistance) { bestDistance = Math.abs(place.left - left); best = token; }
    }
    return best;
  }
}
