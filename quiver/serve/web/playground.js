// The playground: models side by side, a conversation, the routes of its answers.
import { keys, postJson } from "./api.js";
import { Answer } from "./answer.js";
import { byId, copyText, el, plural, saveFile, toast } from "./dom.js";
import { documentView } from "./document_view.js";
import { asCurl, asPython, defaults, isRouted, linkOf, requestOf, settingsOf } from "./request.js";
import { RouteView } from "./route_view.js";
import { documentOf } from "./trace.js";

const kinds = [["method", "Methods"], ["alias", "Aliases"], ["base", "Base model"], ["adapter", "Adapters"]];
const decisions = {
  token: "Chooses adapters for every token.", prompt: "Chooses adapters for every prompt.", once: "Decided once for all.",
};
const examples = [
  "Is this review positive or negative? The food was cold, but our waiter was kind.",
  "Which word does not belong with the others? apple, pear, hammer, plum",
  "Simplify: The committee has reached a determination to postpone the commencement of the proceedings.",
];
const mostModels = 4;
const fields = ["system", "temperature", "top_p", "max_tokens", "seed", "stop", "top_k"];

let served = [];         // model objects of the server
let slots = [];          // the chosen models by name
let turns = [];          // {prompt, root, answers}
let running = null;      // AbortController of the requests under way
let lastRequests = [];   // what was last sent
let isEditing = false;
let shown = null;        // the answer whose routes are shown
let promptTrace = null;  // the card with the routes of a prompt

const form = byId("settings-form"), prompt = byId("prompt");
const modelOf = (id) => served.find((model) => model.id === id);
const settings = () => ({
  ...Object.fromEntries(fields.map((name) => [name, byId(name).value])),
  mode: form.elements.mode.value, models: slots, trace: byId("trace").checked, prompt: prompt.value,
});

const routes = new RouteView({
  onSave: () => saveFile("answer_trace.json", JSON.stringify(documentOf(shown.trace, served.find((model) => model.quiver?.kind === "base")?.id ?? ""))),
});

// --- Settings ---

function modelSelect(slot) {
  const select = el("select", { "aria-label": slots.length > 1 ? `Model ${slot + 1}` : "Model" });
  const known = new Set(kinds.map(([kind]) => kind));
  for (const [kind, label] of [...kinds, [null, "Others"]]) {
    const models = served.filter((model) => (kind === null ? !known.has(model.quiver?.kind) : model.quiver?.kind === kind));
    if (models.length) select.append(el("optgroup", { label }, ...models.map(({ id }) => el("option", { value: id, text: id }))));
  }
  select.value = slots[slot];
  select.addEventListener("change", () => { slots[slot] = select.value; drawModels(slot); });
  return select;
}

function describe(model) {
  const { decides, adapters, kind, method } = model.quiver ?? {}, count = Array.isArray(adapters) ? adapters.length : adapters;
  const parts = [];
  if (kind === "base") parts.push("The base alone, without adapters.");
  else if (kind === "adapter") parts.push("One adapter for every token.");
  else parts.push(...(kind === "alias" && method ? [`An alias of ${method}.`] : []), decisions[decides] ?? "");
  if (kind !== "adapter" && kind !== "base" && count > 0) parts.push(`${plural(count, "adapter")}.`);
  return parts.join(" ");
}

function drawModels(focused = -1) {
  byId("models").replaceChildren(...slots.map((id, slot) => {
    const model = modelOf(id), remove = el("button", {
      type: "button", class: "small", text: "✕", "aria-label": `Remove model ${slot + 1}`, on: { click: () => { slots.splice(slot, 1); drawModels(0); } },
    });
    return el("div", { class: "model" }, el("div", { class: "model-row" }, modelSelect(slot), slots.length > 1 ? remove : null),
      el("p", { class: "sub", text: model ? describe(model) : "" }));
  }));
  if (focused >= 0) byId("models").querySelectorAll("select")[focused]?.focus();
  byId("add-model").hidden = slots.length >= mostModels || served.length < 2;
  byId("routing-fields").hidden = !slots.some((id) => isRouted(modelOf(id)));
  drawSettings();
}

function drawSettings() {
  const { mode, temperature } = settings();
  byId("system-field").hidden = mode !== "chat";
  byId("settings-summary").textContent = [slots.join(" and "), mode === "chat" ? "chat" : "plain text", `temperature ${temperature || "of the server"}`].join(" · ");
  byId("talk-title").textContent = mode === "chat" ? "Conversation" : "Completions";
  prompt.placeholder = mode === "chat" ? "Message" : "Text to be continued";
  prompt.labels[0].textContent = prompt.placeholder;
  byId("prompt-hint").textContent = running ? "Escape stops." : mode === "chat" ? "Enter sends, Shift+Enter breaks the line." : "Ctrl+Enter sends.";
}

function fill(given) {
  for (const name of fields) byId(name).value = given[name];
  byId("trace").checked = given.trace;
  form.elements.mode.value = given.mode;
  prompt.value = given.prompt;
  const missing = given.models.filter((id) => !modelOf(id));
  slots = given.models.filter((id) => modelOf(id));
  if (missing.length) toast(`The link names ${missing.map((id) => `'${id}'`).join(", ")}, which this server does not have.`);
  if (!slots.length && served.length) slots = [(served.find((model) => isRouted(model)) ?? served[0]).id];
  drawModels();
  grow();
}

/// The models of the server; what is chosen stays chosen where it is still there.
export function setModels(models) {
  const isFirst = served.length === 0;
  served = models;
  if (isFirst) fill(settingsOf(location.hash.slice(1)) ?? { ...defaults, prompt: prompt.value });
  else fill({ ...settings(), models: slots });
}

/// Settings from a link. True if the fragment is one.
export function openLink(fragment) {
  const given = settingsOf(fragment);
  if (given && served.length) fill(given);
  return given !== null;
}

// --- Requests ---

/// The conversation before turn `end`, as one model has seen it, and the prompt. Where a model has no answer, another's stands in.
function messagesFor(id, end, text) {
  const messages = [];
  for (const { prompt: said, answers } of turns.slice(0, end)) {
    const answer = answers.find(({ model, text: own }) => model.id === id && own !== "") ?? answers.find(({ text: own }) => own !== "");
    if (answer) messages.push({ role: "user", content: said }, { role: "assistant", content: answer.text });
  }
  return [...messages, { role: "user", content: text }];
}

/// The requests that Send would make now; with an empty box those that were made last.
function requestsNow() {
  if (prompt.value === "" && lastRequests.length) return lastRequests;
  return slots.map((id) => requestOf(settings(), modelOf(id), messagesFor(id, isEditing ? turns.length - 1 : turns.length, prompt.value)));
}

const canSend = () => slots.length > 0 && !running && form.reportValidity();

function submit() {
  if (prompt.value === "" || !canSend()) return;
  if (isEditing) dropTurn();
  const text = prompt.value;
  prompt.value = "";
  setEditing(false);
  grow();
  const root = el("article", { class: "turn" });
  turns.push({ prompt: text, root, answers: [], mode: settings().mode });
  byId("turns").append(root);
  byId("send").blur();
  runLast();
}

async function runLast() {
  const turn = turns.at(-1), now = settings();
  closePromptTrace();
  turn.answers = slots.map((id) => {
    const model = modelOf(id), request = requestOf(now, model, messagesFor(id, turns.length - 1, turn.prompt));
    const answer = new Answer(model, request, { isRead: slots.length === 1, onRoutes: showRoutes, onGrown, onPoint, onCopy: ({ text }) => copyText(text, "the answer") });
    answer.composerHeight = composerHeight;
    return answer;
  });
  lastRequests = turn.answers.map(({ request }) => request);
  hideRoutes();
  running = new AbortController();
  drawTurns();
  setRunning(true);
  turn.root.scrollIntoView({ block: "nearest" });
  await Promise.all(turn.answers.map((answer) => answer.run(running.signal)));
  running = null;
  setRunning(false);
  drawTurns();
}

function setRunning(isRunning) {
  const stop = byId("stop-button"), send = byId("send"), hadFocus = document.activeElement === stop;
  stop.hidden = !isRunning;
  send.hidden = isRunning;
  if (!isRunning && hadFocus) prompt.focus();
  if (isRunning && document.activeElement === document.body) stop.focus({ preventScroll: true });
  drawSettings();
}

export function stop() {
  running?.abort();
}

// --- The conversation ---

const composerHeight = () => (getComputedStyle(byId("composer")).position === "sticky" ? byId("composer").offsetHeight : 0);

function drawTurns() {
  byId("empty").hidden = turns.length > 0 || promptTrace !== null;
  byId("clear").hidden = turns.length === 0 || running !== null;
  byId("letters-field").hidden = !turns.some(({ answers }) => answers.some(({ trace }) => trace));
  turns.forEach((turn, i) => {
    turn.box ??= turn.root.appendChild(el("div", { class: "said" }));
    turn.row ??= turn.root.appendChild(el("div"));
    turn.row.className = `answers of${turn.answers.length}`;
    const isLast = i + 1 === turns.length && running === null, button = (text, click) => el("button", { type: "button", class: "link", text, on: { click } });
    turn.box.replaceChildren(el("h3", { class: "hidden", text: turn.mode === "chat" ? "You" : "Prompt" }), el("p", { dir: "auto", text: turn.prompt }),
      isLast ? el("div", { class: "said-tools" }, button("Edit", edit), button("Regenerate", regenerate), turn.mode === "text" ? button("Continue", carryOn) : null) : "");
    const roots = turn.answers.map(({ root }) => root);
    if (roots.some((root, at) => turn.row.children[at] !== root) || turn.row.children.length !== roots.length) turn.row.replaceChildren(...roots);
  });
}

function dropTurn() {
  const { root } = turns.pop();
  if (root.contains(routes.root)) hideRoutes();
  root.remove();
}

function edit() {
  setEditing(true);
  prompt.value = turns.at(-1).prompt;
  grow();
  prompt.focus();
}

function setEditing(value) {
  isEditing = value;
  byId("editing").hidden = !value;
}

function regenerate() {
  if (canSend()) runLast();
}

/// Plain text: the prompt with its first answer becomes the next prompt.
function carryOn() {
  const { prompt: said, answers } = turns.at(-1);
  prompt.value = said + (answers.find(({ text }) => text !== "")?.text ?? "");
  grow();
  prompt.focus();
}

function clear() {
  turns = [];
  lastRequests = [];
  hideRoutes();
  closePromptTrace();
  setEditing(false);
  byId("turns").replaceChildren();
  drawTurns();
  prompt.focus();
}

/// The box grows with its text, up to what the style sheet allows.
function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

// --- Routes ---

function hideRoutes() {
  shown?.routesButton.setAttribute("aria-pressed", "false");
  shown = null;
  routes.root.remove();
}

function showRoutes(answer) {
  if (shown !== answer) {
    hideRoutes();
    shown = answer;
    answer.routesButton.setAttribute("aria-pressed", "true");
    turns.find(({ answers }) => answers.includes(answer)).root.append(routes.root);
  }
  routes.show(answer.trace, answer.tokens, `Routes of ${answer.model.id}`);
}

function onGrown(answer) {
  if (shown === null) showRoutes(answer);
  else if (shown === answer) routes.grow();
  byId("letters-field").hidden = false;
}

function onPoint(answer, token, isChosen) {
  if (isChosen) {
    if (shown !== answer) showRoutes(answer);
    routes.select(token);
  } else if (shown === answer) {
    routes.hover(token);
  }
}

function closePromptTrace() {
  promptTrace?.remove();
  promptTrace = null;
  drawTurns();
}

async function tracePrompt() {
  const model = slots.map(modelOf).find(isRouted), button = byId("trace-prompt");
  const end = prompt.value === "" || isEditing ? turns.length - 1 : turns.length, text = prompt.value || turns.at(-1)?.prompt;
  if (!model) return toast("The chosen models route nothing: choose a method that decides by token or prompt.");
  if (!text) return toast("Type a prompt first.");
  const { mode } = settings(), { body } = requestOf(settings(), model, messagesFor(model.id, end, text));
  button.disabled = true;
  try {
    const document = await postJson("/v1/quiver/route", { model: model.id, ...(mode === "chat" ? { messages: body.messages } : { prompt: text }) });
    closePromptTrace();
    promptTrace = el("div", { class: "prompt-trace" }, documentView(document, `Routes of the prompt, ${model.id}`),
      el("button", { type: "button", class: "quiet", text: "Close the trace", on: { click: () => { closePromptTrace(); prompt.focus(); } } }));
    byId("turns").after(promptTrace);
    drawTurns();
    promptTrace.scrollIntoView({ block: "start" });
  } catch (error) {
    toast(error.message);
  } finally {
    button.disabled = false;
  }
}

// --- What a person does ---

export function startPlayground() {
  byId("examples").append(...examples.map((text) => el("button", {
    type: "button", class: "quiet", text, on: { click: () => { prompt.value = text; grow(); prompt.focus(); } },
  })));
  form.addEventListener("input", drawSettings);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("add-model").addEventListener("click", () => {
    slots.push((served.find(({ id }) => !slots.includes(id)) ?? served[0]).id);
    drawModels(slots.length - 1);
  });
  byId("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  prompt.addEventListener("input", grow);
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    if (event.ctrlKey || event.metaKey || (settings().mode === "chat" && !event.shiftKey)) { event.preventDefault(); submit(); }
  });
  byId("stop-button").addEventListener("click", stop);
  byId("keep").addEventListener("click", () => { setEditing(false); prompt.value = ""; grow(); prompt.focus(); });
  byId("clear").addEventListener("click", clear);
  byId("trace-prompt").addEventListener("click", tracePrompt);
  byId("letters").addEventListener("change", () => byId("turns").classList.toggle("lettered", byId("letters").checked));
  byId("copy-curl").addEventListener("click", () => copyText(requestsNow().map((request) => asCurl(request, keys.api !== "")).join("\n"), "the request as curl"));
  byId("copy-python").addEventListener("click", () => copyText(requestsNow().map((request) => asPython(request, keys.api !== "")).join("\n"), "the request as Python"));
  byId("copy-link").addEventListener("click", () => {
    const link = linkOf({ ...settings(), prompt: prompt.value || turns.at(-1)?.prompt || "" });
    history.replaceState(null, "", `#${link}`);
    copyText(location.href, "a link to these settings and this prompt");
  });
  fill({ ...defaults });
  // Settings are folded on narrow screens and stand beside the conversation on wide ones.
  const wide = matchMedia("(min-width: 900px)"), fold = () => { byId("settings").open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  drawTurns();
}
