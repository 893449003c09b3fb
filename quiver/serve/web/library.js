// The library: its adapters as a table to sort and filter, the similarity of adapters, the methods.
import { getJson } from "./api.js";
import { coloursOf } from "./colours.js";
import { announce, byId, bytes, copyText, el, integer, plural } from "./dom.js";
import { similarityView } from "./similarity.js";

const columns = [
  { name: "Adapter", value: ({ name }) => name },
  { name: "Kind", value: ({ kind }) => kind ?? "" },
  { name: "Group", value: ({ group }) => group ?? "" },
  { name: "Tasks", value: ({ tasks }) => tasks.length, isNumber: true },
  { name: "Rank", value: ({ rank }) => rank, isNumber: true },
  { name: "Size", value: (adapter) => adapter.bytes, isNumber: true },
  { name: "Requests", value: ({ requests }) => requests ?? 0, isNumber: true },
  { name: "SHA-256", value: ({ sha256 }) => sha256 ?? "" },
];
const families = { once: "decided once for all", token: "decided per token", prompt: "decided per prompt" };
const collator = new Intl.Collator("en", { numeric: true });

function tasksCell({ name, tasks }) {
  if (tasks.length === 1) return el("td", { class: "tasks", text: tasks[0] === name ? "1 task" : tasks[0] });
  if (tasks.length === 0) return el("td", { class: "tasks", text: "–" });
  return el("td", { class: "tasks" }, el("details", {}, el("summary", { text: plural(tasks.length, "task") }), el("ul", {}, ...tasks.map((text) => el("li", { text })))));
}

function rowOf(adapter, colour) {
  const { name, kind, group, rank, requests, sha256 } = adapter;
  return el("tr", {},
    el("th", { scope: "row" }, el("div", { class: "named" }, el("span", { class: `dot c${colour}`, "aria-hidden": "true" }), el("span", { class: "name", text: name }))),
    el("td", { text: kind ?? "–" }), el("td", { text: group ?? "–" }), tasksCell(adapter),
    el("td", { class: "num", text: rank ?? "–" }), el("td", { class: "num", text: bytes(adapter.bytes) }), el("td", { class: "num", text: integer(requests ?? 0) }),
    el("td", {}, sha256 ? el("button", {
      type: "button", class: "link", title: sha256, "aria-label": `${sha256.slice(0, 10)}: copy the SHA-256 of ${name}`, on: { click: () => copyText(sha256, `the SHA-256 of ${name}`) },
    }, el("code", { text: sha256.slice(0, 10) })) : "–"));
}

function adaptersTable(adapters) {
  const colours = coloursOf(adapters.map(({ name }) => name));
  const rows = adapters.map((adapter, i) => ({ adapter, row: rowOf(adapter, colours[i]), text: [adapter.name, ...adapter.tasks].join("\n").toLowerCase() }));
  const body = el("tbody"), count = el("span", { class: "sub" });
  const distinct = (name) => [...new Set(adapters.map((adapter) => adapter[name]).filter(Boolean))].sort(collator.compare);
  const search = el("input", { type: "search", placeholder: "Name or task", autocomplete: "off" });
  const select = (name) => el("select", {}, el("option", { value: "", text: "all" }), ...distinct(name).map((text) => el("option", { value: text, text })));
  const kind = select("kind"), group = select("group");
  let column = columns[0], sign = 1;
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const found = rows.filter(({ adapter, text }) => text.includes(wanted) && (!kind.value || adapter.kind === kind.value) && (!group.value || adapter.group === group.value));
    found.sort((a, b) => {
      const x = column.value(a.adapter), y = column.value(b.adapter);
      const order = column.isNumber ? x - y : collator.compare(x, y);
      // What has no group or kind stays last in either order.
      if (!column.isNumber && (x === "") !== (y === "")) return x === "" ? 1 : -1;
      return sign * order || collator.compare(a.adapter.name, b.adapter.name);
    });
    body.replaceChildren(...found.map(({ row }) => row));
    count.textContent = found.length === adapters.length ? plural(found.length, "adapter") : `${integer(found.length)} of ${plural(adapters.length, "adapter")}`;
  };
  const heads = columns.map((own) => {
    const head = el("th", { scope: "col", class: own.isNumber && own.name !== "Tasks" ? "num" : "" }, el("button", { type: "button", class: "sort", text: own.name, on: { click: () => {
      sign = column === own ? -sign : own.isNumber ? -1 : 1;
      column = own;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      draw();
      announce(`Sorted by ${own.name}, ${sign > 0 ? "ascending" : "descending"}.`);
    } } }));
    return head;
  });
  heads[0].setAttribute("aria-sort", "ascending");
  for (const control of [search, kind, group]) control.addEventListener("input", draw);
  draw();
  return el("div", {},
    el("div", { class: "filters" }, el("label", { class: "field" }, "Filter", search), el("label", { class: "field" }, "Kind", kind),
      el("label", { class: "field" }, "Group", group), count),
    el("div", { class: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Adapters" }, el("table", { class: "data adapters" },
      el("caption", { class: "hidden", text: "Adapters of the library" }), el("thead", {}, el("tr", {}, ...heads)), body)));
}

function groupsView(groups) {
  const names = Object.keys(groups).sort(collator.compare);
  if (!names.length) return null;
  return el("section", {}, el("h3", { text: "Groups of tasks" }), el("div", { class: "cards" }, ...names.map((name) => el("div", { class: "card" },
    el("h4", { text: `${name} · ${plural(groups[name].length, "task")}` }), el("ul", { class: "names" }, ...groups[name].map((text) => el("li", { text })))))));
}

function methodsView(methods) {
  return el("section", {}, el("h3", { text: "Methods" }), el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Methods" }, el("table", { class: "data" },
    el("thead", {}, el("tr", {}, ...["Method", "When", "What"].map((text) => el("th", { scope: "col", text })))),
    el("tbody", {}, ...methods.map(({ name, family, what }) => el("tr", {}, el("th", { scope: "row", text: name }), el("td", { text: families[family] ?? family }), el("td", { text: what })))))));
}

function draw(root, library) {
  const adapters = library.adapters.map((adapter) => ({ ...adapter, tasks: adapter.tasks ?? [] })), groups = library.groups ?? {};
  const groupOf = new Map(adapters.map(({ name, group }) => [name, group ?? ""]));
  const total = adapters.reduce((sum, adapter) => sum + adapter.bytes, 0);
  const similarity = library.similarity;
  root.replaceChildren(
    el("div", { class: "view-head" }, el("h2", { text: "Library" }), el("button", { type: "button", class: "small", text: "Read again", on: { click: () => showLibrary() } })),
    el("p", { class: "sub", text: `${plural(adapters.length, "adapter")} of ${library.base}, ${bytes(total)}, ${plural(Object.keys(groups).length, "group")} of tasks` }),
    adaptersTable(adapters),
    el("section", {}, el("h3", { text: "Similarity of adapters" }), similarity?.names?.length ? similarityView(similarity, groupOf)
      : el("p", { class: "sub", text: "This library has no similarities, or more adapters than a map can show." })),
    groupsView(groups) ?? "", methodsView(library.methods ?? []));
}

/// Reads the library and shows it.
export async function showLibrary() {
  const root = byId("view-library");
  if (!root.firstChild) root.append(el("p", { class: "sub", text: "The library is being read." }));
  try {
    draw(root, await getJson("/v1/quiver/library"));
  } catch (error) {
    root.replaceChildren(el("div", { class: "view-head" }, el("h2", { text: "Library" })), el("p", { class: "notice error", text: error.message }),
      el("button", { type: "button", text: "Try again", on: { click: () => showLibrary() } }));
  }
}
