// An answer of one model: its stream, its tokens as they come, times and counts.
import { streamJson } from "./api.js";
import { grey } from "./colours.js";
import { announce, el, integer, perFrame, percent, plural, rate, seconds } from "./dom.js";
import { nameOf } from "./route_view.js";
import { TokenText } from "./tokens.js";
import { appendRoute, sharesOf, traceOfHeader } from "./trace.js";

/// A block of plain text ends with a line after so many characters, so that the browser can leave out blocks that are not in view.
const blockLength = 4000;
/// Adapters of smaller shares are one part of the bar of shares.
const leastShare = 0.02;
const finishWords = { stop: "", length: "cut off at the most tokens" };

export class Answer {
  /// `request` is `{path, body}`. If `isRead`, screen readers hear the text by whole sentences. `onRoutes(answer)` is asked to show the answer's routes, `onGrown(answer)` told that its trace has grown,
  /// `onPoint(answer, token, isChosen)` what a person points at.
  constructor(model, request, { isRead, onRoutes, onGrown, onPoint, onCopy }) {
    Object.assign(this, { model, request, isRead, onGrown, onPoint });
    this.read = 0;
    this.text = "";
    this.pending = "";
    this.trace = this.tokens = null;
    this.state = "waiting";
    this.body = el("div", { class: "answer-text" });
    this.note = el("p", { class: "notice error", hidden: true });
    this.strip = el("div", { class: "strip", role: "img", hidden: true });
    this.meta = el("p", { class: "meta", text: "waiting for the first token" });
    this.routesButton = el("button", {
      type: "button", class: "link", text: "Routes", hidden: true, "aria-pressed": "false", on: { click: () => onRoutes(this) },
    });
    this.copyButton = el("button", { type: "button", class: "link", text: "Copy", hidden: true, on: { click: () => onCopy(this) } });
    this.root = el("section", { class: "answer waiting", "aria-label": `Answer of ${model.id}` },
      el("h3", {}, el("span", { text: model.id })), this.body, this.note, this.strip,
      el("div", { class: "answer-foot" }, this.meta, this.routesButton, this.copyButton));
    this.flush = perFrame(() => this.flushNow());
  }

  /// Runs the request until its end; never throws.
  async run(signal) {
    this.start = performance.now();
    try {
      await streamJson(this.request.path, this.request.body, signal, (chunk) => this.onChunk(chunk));
      this.end("done");
    } catch (error) {
      if (error.name === "AbortError") {
        this.end("stopped");
        return;
      }
      this.fail(error);
    }
  }

  onChunk(chunk) {
    const choice = chunk.choices?.[0], ours = { ...chunk.quiver, ...choice?.quiver }, piece = choice?.delta?.content ?? choice?.text ?? "";
    if (ours.seed !== undefined) this.seed = ours.seed;
    if (ours.route_header) this.beginTrace(ours.route_header);
    this.text += piece;
    if (!(ours.route && this.trace && this.addRoute(ours.route, piece))) this.pending += piece;
    if (piece !== "" || ours.route) {
      this.last = performance.now();
      this.first ??= this.last;
      this.chunks = (this.chunks ?? 0) + 1;
      if (this.state === "waiting") this.setState("running");
    }
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    if (chunk.usage) this.usage = chunk.usage;
    this.flush();
  }

  beginTrace(header) {
    this.trace = traceOfHeader(header, this.model.id);
    this.tokens = new TokenText(this.body, `Answer of ${this.model.id}`, {
      onSelect: (token) => this.onPoint(this, token, true), onHover: (token) => this.onPoint(this, token, false),
    });
    this.routesButton.hidden = false;
    this.strip.hidden = false;
  }

  /// False if the route cannot be read: the answer goes on as text.
  addRoute(route, piece) {
    try {
      appendRoute(this.trace, route, piece);
      return true;
    } catch (error) {
      this.say(`Routes are left out: ${error.message}`);
      return false;
    }
  }

  flushNow() {
    const limit = innerHeight - (this.composerHeight?.() ?? 0) - 12;
    const wasInView = this.body.getBoundingClientRect().bottom <= limit + 4;
    if (this.trace) this.tokens.append(this.trace);
    if (this.pending !== "") this.appendText();
    if (this.trace) this.onGrown(this);
    const { bottom } = this.body.getBoundingClientRect();
    if (this.state === "running" && wasInView && bottom > limit) scrollBy(0, bottom - limit);
    const now = performance.now();
    if (this.state !== "running" || now - (this.shown ?? 0) < 250) return;
    this.shown = now;
    this.drawMeta();
    this.drawStrip();
    if (this.isRead && this.sentenceEnd() > this.read) announce(() => this.unread(this.sentenceEnd()));
  }

  /// The text up to `end` that screen readers have not heard.
  unread(end) {
    const text = this.text.slice(this.read, end).trim();
    this.read = Math.max(this.read, end);
    return text;
  }

  /// The end of the last whole sentence.
  sentenceEnd() {
    const ends = [...this.text.slice(this.read).matchAll(/[.!?:][)\]"'”’]*\s|\n/g)];
    return ends.length ? this.read + ends.at(-1).index + ends.at(-1)[0].length : this.read;
  }

  appendText() {
    if (this.tokens) {
      this.tokens.appendText(this.pending);
    } else {
      if (!this.block || (this.block.data.length > blockLength && this.block.data.endsWith("\n"))) {
        this.block = document.createTextNode("");
        this.body.append(el("div", { class: "run" }, this.block));
      }
      this.block.appendData(this.pending);
    }
    this.pending = "";
  }

  setState(state) {
    this.state = state;
    this.root.className = `answer ${state}`;
    this.root.setAttribute("aria-busy", String(state === "waiting" || state === "running"));
  }

  end(state) {
    this.setState(state);
    this.flushNow();
    this.drawMeta();
    this.drawStrip();
    this.copyButton.hidden = this.text === "";
    const words = { done: "has ended", stopped: "was stopped", failed: "has failed" }[state];
    const summary = `The answer of ${this.model.id} ${words} after ${plural(this.numTokens(), "token")}.`;
    announce(() => (this.isRead ? [this.unread(this.text.length), this.note.textContent, summary].filter(Boolean).join(" ") : summary));
  }

  fail(error) {
    this.say(error.message, error.requestId);
    this.end("failed");
  }

  say(text, requestId = "") {
    this.note.hidden = false;
    this.note.replaceChildren(text, ...(requestId ? [el("small", { text: ` Request ${requestId}` })] : []));
  }

  numTokens() { return this.usage?.completion_tokens ?? this.trace?.tokens.length ?? this.chunks ?? 0; }

  drawMeta() {
    const tokens = this.numTokens(), parts = [];
    if (this.first !== undefined) {
      parts.push(`first token ${seconds((this.first - this.start) / 1000)}`);
      const span = (this.last - this.first) / 1000;
      if (tokens > 1 && span > 0) parts.push(`${rate((tokens - 1) / span)} tokens/s`);
      parts.push(plural(tokens, "token"));
    }
    const prompt = this.usage?.prompt_tokens, cached = this.usage?.prompt_tokens_details?.cached_tokens;
    if (prompt !== undefined) parts.push(`${integer(cached ?? 0)} of ${plural(prompt, "prompt token")} cached`);
    if (this.seed !== undefined && this.request.body.temperature !== 0) parts.push(`seed ${this.seed}`);
    if (this.state === "stopped") parts.push("stopped");
    else if (this.finish) parts.push(finishWords[this.finish] ?? this.finish);
    this.meta.textContent = parts.filter((part) => part !== "").join(" · ") ||
      { waiting: "waiting for the first token", stopped: "stopped", failed: "no answer" }[this.state] || "an empty answer";
  }

  /// The shares of the adapters as one bar.
  drawStrip() {
    if (!this.trace?.tokens.length) return;
    const rows = sharesOf(this.trace), large = rows.filter(([, share]) => share >= leastShare);
    const part = (name, title, share) => {
      const bar = el("i", { class: name, title: `${title} ${percent(share, 1)}` });
      bar.style.flexGrow = String(share);
      return bar;
    };
    const rest = rows.slice(large.length).reduce((sum, [, share]) => sum + share, 0);
    this.strip.replaceChildren(
      ...large.map(([adapter, share]) => part(`c${adapter < 0 ? grey : this.trace.colours[adapter]}`, nameOf(this.trace, adapter), share)),
      ...(rest > 0 ? [part("rest", `${plural(rows.length - large.length, "other")},`, rest)] : []));
    const words = rows.slice(0, 3).map(([adapter, share]) => `${nameOf(this.trace, adapter)} ${percent(share)}`);
    this.strip.setAttribute("aria-label", `Favoured adapters: ${words.join(", ")}`);
  }
}
