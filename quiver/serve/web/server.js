// The server: what runs, its cache, its adapters, its last errors; read every second while it is in view.
import { getJson, keys, postJson } from "./api.js";
import { byId, bytes, el, integer, percent, plural, rate, seconds, svg, toast } from "./dom.js";

const period = 1000, longest = 8000, samples = 60;
const histories = new Map();
let timer = 0, isShown = false, failures = 0, onAdapters = () => {};

/// A line of the last samples, from 0 to their largest.
function sparkline(name, value) {
  const history = histories.get(name) ?? [];
  history.push(Number.isFinite(value) ? value : 0);
  if (history.length > samples) history.shift();
  histories.set(name, history);
  const most = Math.max(...history, 1e-9), x = (i) => 160 - (history.length - 1 - i) * (160 / (samples - 1)), y = (sample) => 33 - (30 * sample) / most;
  const line = history.map((sample, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(sample).toFixed(1)}`).join("");
  return svg("svg", { viewBox: "0 0 160 36", class: "spark", role: "img", "aria-label": `The last ${history.length} seconds; most ${rate(most)}`, preserveAspectRatio: "none" },
    svg("path", { d: `${line}L160 36L${x(0).toFixed(1)} 36Z`, class: "area" }), svg("path", { d: line, class: "line" }));
}

const card = (title, value, note, ...more) => el("div", { class: "card" }, el("h3", { text: title }), el("p", { class: "figure", text: value }), el("p", { class: "sub", text: note }), ...more);

function pagesCard({ used = 0, cached = 0, free = 0, rows = 0 }) {
  const total = used + cached + free || 1;
  const part = (name, count) => {
    const bar = el("i", { class: name });
    bar.style.width = `${(100 * count) / total}%`;
    return bar;
  };
  return card("Cache pages", `${percent((used + cached) / total)} held`, `${integer(used)} used · ${integer(cached)} cached · ${integer(free)} free${rows ? `, of ${rows} tokens each` : ""}`,
    el("div", { class: "stacked", role: "img", "aria-label": `${integer(used)} pages used, ${integer(cached)} cached, ${integer(free)} free` }, part("used", used), part("cached", cached)));
}

function drawCards(status) {
  const { running = 0, waiting = 0, pages = {}, cache = {}, tokens_per_second: speed = {}, requests = {} } = status;
  const hits = cache.prompt_tokens > 0 ? cache.hit_tokens / cache.prompt_tokens : 0;
  byId("server-cards").replaceChildren(
    card("Requests", `${integer(running)} running`, `${integer(waiting)} waiting · ${integer(requests.finished ?? 0)} finished · ${integer(requests.cancelled ?? 0)} cancelled · ${integer(requests.failed ?? 0)} failed`, sparkline("running", running + waiting)),
    card("Tokens a second", rate(speed.generated ?? 0), `generated; ${rate(speed.prompt ?? 0)} of prompts`, sparkline("generated", speed.generated ?? 0)),
    pagesCard(pages),
    card("Prompt tokens from the cache", percent(hits, 1), `${integer(cache.hit_tokens ?? 0)} of ${integer(cache.prompt_tokens ?? 0)} since the start`, sparkline("hits", hits)));
  const facts = [status.base, status.version && `Quiver ${status.version}`, Number.isFinite(status.uptime_seconds) && `up for ${seconds(status.uptime_seconds)}`,
    Number.isFinite(status.connections) && plural(status.connections, "connection"), status.is_ready === false && "not ready"];
  byId("server-facts").textContent = facts.filter(Boolean).join(" · ");
}

function drawErrors(errors = []) {
  const clock = (time) => new Date(1000 * time).toLocaleTimeString("en", { hour12: false });
  byId("server-errors").replaceChildren(errors.length ? el("ul", { class: "errors" }, ...errors.map(({ time, status, message, request }) => el("li", {},
    el("time", { text: clock(time) }), el("span", { class: "status", text: status ?? "" }), el("span", { text: message }), request ? el("small", { text: request }) : "")))
    : el("p", { class: "sub", text: "None since the start." }));
}

let drawn = "";
function drawAdapters(adapters = []) {
  const text = JSON.stringify([adapters, keys.admin !== ""]);
  // The table stays as it is while nothing changes, so that the focus stays where it is.
  if (text === drawn) return;
  drawn = text;
  byId("server-adapters").replaceChildren(el("table", { class: "data" },
    el("caption", { class: "hidden", text: "Adapters that are loaded" }),
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Adapter" }), el("th", { scope: "col", class: "num", text: "Size" }), el("th", { scope: "col", class: "num", text: "Requests" }),
      keys.admin ? el("th", { scope: "col" }, el("span", { class: "hidden", text: "Remove" })) : "")),
    el("tbody", {}, ...adapters.map(({ name, bytes: size, requests, is_ready: isReady }) => el("tr", {},
      el("th", { scope: "row", text: isReady === false ? `${name} (loads when asked)` : name }), el("td", { class: "num", text: bytes(size ?? 0) }), el("td", { class: "num", text: integer(requests ?? 0) }),
      keys.admin ? el("td", { class: "num" }, el("button", { type: "button", class: "link", text: "Remove", "aria-label": `Remove ${name}`, on: { click: () => remove(name) } })) : "")))));
}

async function change(path, body, done) {
  try {
    const answer = await postJson(path, body, { key: keys.admin });
    toast(answer.message ?? done);
    onAdapters();
    read();
    return true;
  } catch (error) {
    toast(error.message);
    return false;
  }
}

let asked = "";
/// Removes an adapter when it is asked for twice.
function remove(name) {
  if (asked !== name) {
    asked = name;
    toast(`Press Remove once more to remove ${name}.`);
    setTimeout(() => { asked = ""; }, 4000);
    return;
  }
  asked = "";
  change("/v1/unload_lora_adapter", { lora_name: name }, `Removed: ${name}`);
}

function build(root) {
  const key = el("input", { type: "password", autocomplete: "off", spellcheck: false, id: "admin-key" });
  const name = el("input", { required: true, autocomplete: "off", spellcheck: false, id: "lora-name" }), path = el("input", { required: true, autocomplete: "off", spellcheck: false, id: "lora-path" });
  const replace = el("input", { type: "checkbox", id: "lora-replace" });
  const add = el("form", { class: "admin", hidden: true }, el("label", { class: "field" }, "Name", name), el("label", { class: "field" }, "Folder on the server", path),
    el("label", { class: "check" }, replace, " Replace an adapter of this name"), el("button", { class: "primary", text: "Add adapter" }));
  add.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { lora_name: name.value, lora_path: path.value, ...(replace.checked ? { load_inplace: true } : {}) };
    if (await change("/v1/load_lora_adapter", body, `Added: ${name.value}`)) add.reset();
  });
  key.addEventListener("input", () => { keys.admin = key.value; add.hidden = key.value === ""; read(); });
  const keyForm = el("form", { class: "admin" }, el("label", { class: "field" }, "Admin key", key), el("p", { class: "sub", text: "With it, adapters can be added and removed. It is kept in memory only." }));
  keyForm.addEventListener("submit", (event) => event.preventDefault());
  root.append(el("div", { class: "view-head" }, el("h2", { text: "Server" }), el("span", { class: "sub", id: "server-state" })), el("p", { class: "sub", id: "server-facts" }),
    el("div", { class: "cards", id: "server-cards" }), el("h3", { text: "Last errors" }), el("div", { id: "server-errors" }),
    el("h3", { text: "Adapters" }), keyForm, add, el("div", { class: "scroll tall", id: "server-adapters", tabIndex: 0, role: "region", "aria-label": "Loaded adapters" }));
}

async function read() {
  clearTimeout(timer);
  if (!isShown || document.visibilityState !== "visible") return;
  const state = byId("server-state");
  try {
    const status = await getJson("/v1/quiver/status");
    failures = 0;
    drawCards(status);
    drawErrors(status.errors);
    drawAdapters(status.adapters);
    state.textContent = "read every second";
    state.classList.remove("error");
  } catch (error) {
    failures += 1;
    state.textContent = error.message;
    state.classList.add("error");
  }
  clearTimeout(timer);
  if (isShown) timer = setTimeout(read, Math.min(longest, period * 2 ** Math.min(failures, 3)));
}

/// Shows the server's state, or stops reading it. `changed` is called when adapters were added or removed.
export function showServer(isOn, changed) {
  const root = byId("view-server");
  onAdapters = changed;
  isShown = isOn;
  if (isOn && !root.firstChild) build(root);
  read();
}
document.addEventListener("visibilitychange", read);
