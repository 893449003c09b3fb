// Small helpers: elements, numbers as people read them, words for screen readers.

/// An element with properties and children. `class`, `text`, `data` and names with a dash (aria-label) are attributes; `on` holds
/// listeners; others are properties. Strings become text nodes: nothing here parses HTML.
export function el(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name.includes("-") || name === "role" || name === "for" || name === "colspan") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const svgNamespace = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

const integers = new Intl.NumberFormat("en");
export const integer = (value) => integers.format(Math.round(value));
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const plural = (count, word) => `${integer(count)} ${word}${count === 1 ? "" : "s"}`;

/// Three significant digits below a thousand: 0.123, 45.2, 128.
export function rate(value) {
  if (!Number.isFinite(value)) return "–";
  return value >= 100 ? integer(value) : value.toFixed(value >= 10 ? 1 : 2);
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0, number = value;
  while (number >= 1024 && unit + 1 < units.length) { number /= 1024; unit += 1; }
  return `${unit === 0 ? integer(number) : number.toFixed(number >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function seconds(value) {
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(value / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days > 0) return `${days} d ${hours % 24} h`;
  return hours > 0 ? `${hours} h ${minutes % 60} min` : `${minutes} min ${Math.round(value % 60)} s`;
}

/// What a token's text looks like in a line: spaces and breaks are made visible.
export function visible(text) {
  if (text === "") return "(no text)";
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}

/// Tells screen readers at most one thing a second; of things that wait, the last. `words` is a text or a function that gives it when its
/// time has come, "" for nothing.
let waiting = null, last = 0, timer = 0;
export function announce(words) {
  waiting = words;
  if (timer) return;
  timer = setTimeout(() => {
    timer = 0;
    const text = typeof waiting === "function" ? waiting() : waiting;
    if (text === "") return;
    last = performance.now();
    byId("live").textContent = text;
  }, Math.max(0, last + 1000 - performance.now()));
}

/// Shows a sentence at the bottom of the page for some seconds.
let toastTimer = 0;
export function toast(sentence) {
  const box = byId("toast");
  box.textContent = sentence;
  box.classList.add("shown");
  announce(sentence);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("shown"), 3500);
}

/// Puts text on the clipboard. Where the browser does not allow it, a dialog shows the text, selected.
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied: ${what}`);
  } catch {
    byId("copy-title").textContent = what;
    byId("copy-text").value = text;
    byId("copy").showModal();
    byId("copy-text").select();
  }
}

/// Offers text as a file.
export function saveFile(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/// Runs `draw` once in the next frame, however often it is asked for.
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}
