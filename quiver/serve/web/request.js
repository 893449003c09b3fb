// What is asked: settings as a request, the request as curl and Python, settings as a link.
import { urlOf } from "./api.js";

export const defaults = {
  mode: "chat", models: [], system: "", temperature: "0", top_p: "1", max_tokens: "256", seed: "", stop: "", top_k: "", trace: true, prompt: "",
};

/// The stop strings, one a line; \n and \t stand for a line break and a tab, \\ for a backslash.
export const stopStrings = (text) =>
  text.split("\n").filter((line) => line !== "")
    .map((line) => line.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]));

/// True for models that choose adapters while they answer, so that there are routes to show.
export const isRouted = (model) => model?.quiver?.decides === "token" || model?.quiver?.decides === "prompt";

/// `{path, body}` of a request. `messages` are those of the conversation; the system message comes from the settings. A model that routes
/// nothing gets no options of routing.
export function requestOf(settings, model, messages) {
  const body = { model: model.id };
  if (settings.mode === "chat") {
    const system = settings.system.trim() === "" ? [] : [{ role: "system", content: settings.system }];
    body.messages = [...system, ...messages];
  } else {
    body.prompt = messages.at(-1).content;
  }
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) {
    const text = settings[name].trim();
    if (text !== "" && !(name === "top_p" && Number(text) === 1)) body[name] = Number(text);
  }
  const stop = stopStrings(settings.stop);
  if (stop.length) body.stop = stop;
  body.stream = true;
  body.stream_options = { include_usage: true };
  if (isRouted(model)) {
    const ours = {};
    if (settings.top_k.trim() !== "") ours.top_k = Number(settings.top_k);
    if (settings.trace) ours.trace = "layers";
    if (Object.keys(ours).length) body.quiver = ours;
  }
  return { path: settings.mode === "chat" ? "/v1/chat/completions" : "/v1/completions", body };
}

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl({ path, body }, hasKey) {
  const key = hasKey ? ' \\\n  -H "Authorization: Bearer $QUIVER_API_KEY"' : "";
  return `curl -N ${shellQuoted(urlOf(path))} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d ${shellQuoted(JSON.stringify(body, null, 2))}\n`;
}

function pythonOf(value, indent) {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Array.isArray(value) ? value.map((item) => pythonOf(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonOf(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = open + items.join(", ") + close;
  return line.length < 70 ? line : `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

/// The same request through the `openai` package.
export function asPython({ path, body }, hasKey) {
  const { quiver, ...known } = body;
  const isChat = path.includes("chat");
  const names = Object.entries(quiver ? { ...known, extra_body: { quiver } } : known);
  const text = isChat ? "chunk.choices[0].delta.content or \"\"" : "chunk.choices[0].text";
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(urlOf("/v1"))}, api_key=${hasKey ? 'os.environ["QUIVER_API_KEY"]' : '"none"'})
stream = client.${isChat ? "chat.completions" : "completions"}.create(
${names.map(([name, value]) => `    ${name}=${pythonOf(value, "    ")},\n`).join("")})
for chunk in stream:
    if chunk.choices:
        print(${text}, end="", flush=True)
`;
}

/// Settings as a fragment. Only what differs from the defaults is in it.
export function linkOf(settings) {
  const changed = Object.fromEntries(Object.entries(settings).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(defaults[name])));
  const units = new TextEncoder().encode(JSON.stringify(changed));
  let binary = "";
  for (const unit of units) binary += String.fromCharCode(unit);
  return `p=${btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/// The settings of a fragment, or null for one that is none. A member of another type than the default's is left out.
export function settingsOf(fragment) {
  if (!fragment.startsWith("p=")) return null;
  try {
    const binary = atob(fragment.slice(2).replaceAll("-", "+").replaceAll("_", "/"));
    const given = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (unit) => unit.charCodeAt(0))));
    const settings = { ...defaults };
    for (const [name, value] of Object.entries(defaults)) {
      if (typeof given[name] === typeof value && Array.isArray(given[name]) === Array.isArray(value)) settings[name] = given[name];
    }
    settings.models = settings.models.filter((id) => typeof id === "string").slice(0, 4);
    if (settings.mode !== "text") settings.mode = "chat";
    return settings;
  } catch {
    return null;
  }
}
