// Starts the page: views by fragment, the API key, the list of models.
import { getJson, keys } from "./api.js";
import { setLibrary } from "./colours.js";
import { byId, el } from "./dom.js";
import { documentView } from "./document_view.js";
import { showLibrary } from "./library.js";
import { openLink, setModels, startPlayground, stop } from "./playground.js";
import { showServer } from "./server.js";

const views = ["playground", "traces", "library", "server"];

async function loadModels() {
  const problem = byId("problem");
  try {
    const { data } = await getJson("/v1/models");
    setLibrary(data.filter((model) => model.quiver?.kind === "adapter").map(({ id }) => id));
    problem.hidden = true;
    byId("api-key").removeAttribute("aria-invalid");
    setModels(data);
  } catch (error) {
    problem.replaceChildren(`${error.message} `, el("button", { type: "button", class: "link", text: "Try again", on: { click: loadModels } }));
    problem.hidden = false;
    if (error.status === 401) byId("api-key").setAttribute("aria-invalid", "true");
  }
}

/// Shows the view that the address names; a fragment that holds settings is the playground.
function route() {
  const fragment = location.hash.slice(1), isLink = openLink(fragment), view = !isLink && views.includes(fragment) ? fragment : "playground";
  if (!isLink && fragment === "main") return;
  for (const name of views) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = view === "playground" ? "Quiver" : `${view[0].toUpperCase()}${view.slice(1)} · Quiver`;
  showServer(view === "server", loadModels);
  if (view === "library") showLibrary();
}

async function openTrace(file) {
  const box = byId("trace-view"), note = byId("trace-note");
  try {
    box.replaceChildren(documentView(JSON.parse(await file.text()), file.name));
    note.hidden = true;
  } catch (error) {
    const isJson = !(error instanceof SyntaxError);
    box.replaceChildren(el("p", { class: "notice error", text: isJson ? error.message : `'${file.name}' is no JSON.` }));
  }
}

startPlayground();
addEventListener("hashchange", route);
route();
loadModels();
byId("key-form").addEventListener("submit", (event) => { event.preventDefault(); loadModels(); });
byId("api-key").addEventListener("input", () => { keys.api = byId("api-key").value; });
byId("api-key").addEventListener("change", loadModels);
byId("trace-file").addEventListener("change", () => {
  const [file] = byId("trace-file").files;
  if (file) openTrace(file);
  byId("trace-file").value = "";
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop(); });
