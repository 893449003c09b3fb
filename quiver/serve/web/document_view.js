// A trace document (`quiver route --json`) with its text, at all projections or at those of one type.
import { el, saveFile } from "./dom.js";
import { RouteView } from "./route_view.js";
import { TokenText } from "./tokens.js";
import { checkDocument, traceOfDocument, typesOf } from "./trace.js";

const figure = (value) => (typeof value === "number" ? value.toFixed(2) : null);

/// One line of a document's figures.
function figuresOf({ statistics = {} }) {
  const { entropy, largest_entropy: most, margin, agreement } = statistics;
  const parts = [];
  if (figure(entropy)) parts.push(`entropy ${figure(entropy)}${figure(most) ? ` of ${figure(most)}` : ""}`);
  if (figure(margin)) parts.push(`margin ${figure(margin)}`);
  if (figure(agreement)) parts.push(`agreement of projections ${Math.round(100 * agreement)} %`);
  return parts.join(" · ");
}

/// The view of a document, as an element. Throws an Error that says what is wrong with it.
export function documentView(document, title) {
  checkDocument(document);
  let trace = traceOfDocument(document);
  const view = new RouteView({ onSave: () => saveFile("trace.json", JSON.stringify(document)) });
  const box = el("div", { class: "answer-text" });
  const tokens = new TokenText(box, "Text of the trace, as tokens", { onSelect: (token) => view.select(token), onHover: (token) => view.hover(token) });
  tokens.append(trace);
  const types = typesOf(document);
  const select = el("select", {}, el("option", { value: "", text: "all projections" }), ...types.map((type) => el("option", { value: type, text: type })));
  select.addEventListener("change", () => {
    trace = traceOfDocument(document, select.value);
    tokens.repaint(trace);
    view.show(trace, tokens, title);
  });
  view.show(trace, tokens, title);
  view.extra.append(
    el("p", { class: "sub", text: [document.what, figuresOf(document)].filter(Boolean).join(" · ") }),
    types.length > 1 ? el("label", { class: "field row" }, "Routes at ", select) : "", box);
  return view.root;
}
