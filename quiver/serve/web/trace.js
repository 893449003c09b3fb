// Traces of routes: of an answer as it comes, by token and layer, and of a document of `quiver route --json`.
import { coloursOf } from "./colours.js";

/// A trace: `adapters` and `layers` by name, `tokens` their texts. For each token and layer, `ids` and `shares` hold `k` adapters, the
/// favourite first; id -1 is none. `votes[n]` counts the places (token and layer) that favour adapter n, `votes[adapters.length]` those that
/// favour none.
function emptyTrace(what, adapters, layers, k) {
  return {
    what, adapters, layers, k, tokens: [],
    ids: new Int32Array(0), shares: new Float32Array(0),
    votes: new Float64Array(adapters.length + 1),
    colours: coloursOf(adapters),
  };
}

/// Room for `count` tokens more.
function reserve(trace, count) {
  const needed = (trace.tokens.length + count) * trace.layers.length * trace.k;
  if (needed <= trace.ids.length) return;
  const size = Math.max(needed, 2 * trace.ids.length, 1024);
  const ids = new Int32Array(size), shares = new Float32Array(size);
  ids.set(trace.ids);
  shares.set(trace.shares);
  Object.assign(trace, { ids, shares });
}

const placeOf = (trace, token, layer) => (token * trace.layers.length + layer) * trace.k;
export const favouriteAt = (trace, token, layer) => trace.ids[placeOf(trace, token, layer)];
export const shareAt = (trace, token, layer) => trace.shares[placeOf(trace, token, layer)];

/// The adapters of a place, `[[index, share], ...]`, the favourite first.
export function choicesAt(trace, token, layer) {
  const place = placeOf(trace, token, layer), choices = [];
  for (let i = place; i < place + trace.k; ++i) if (trace.ids[i] >= 0) choices.push([trace.ids[i], trace.shares[i]]);
  return choices;
}

/// The adapter that most layers of a token favour, and the share of the layers that do: `{adapter, share}`; -1 is none.
export function favouriteOf(trace, token) {
  const votes = new Map();
  let adapter = -1, most = 0;
  for (let layer = 0; layer < trace.layers.length; ++layer) {
    const id = favouriteAt(trace, token, layer), count = (votes.get(id) ?? 0) + 1;
    votes.set(id, count);
    if (count > most) { most = count; adapter = id; }
  }
  return { adapter, share: trace.layers.length ? most / trace.layers.length : 0 };
}

function countVotes(trace, from) {
  for (let token = from; token < trace.tokens.length; ++token) {
    for (let layer = 0; layer < trace.layers.length; ++layer) {
      const id = favouriteAt(trace, token, layer);
      trace.votes[id < 0 ? trace.adapters.length : id] += 1;
    }
  }
}

/// Adapters by the share of places that favour them, `[[index, share], ...]`, largest first; -1 is none.
export function sharesOf(trace) {
  const places = trace.tokens.length * trace.layers.length;
  const rows = [];
  trace.votes.forEach((votes, n) => { if (votes > 0) rows.push([n === trace.adapters.length ? -1 : n, votes / places]); });
  return rows.sort((a, b) => b[1] - a[1]);
}

// --- Of an answer ---

/// An empty trace of a stream's first chunk, `{adapters, layers, projections, ids}`.
export function traceOfHeader(header, what) {
  const names = Array.isArray(header.adapters) ? header.adapters.map(String) : [];
  const layers = Array.from({ length: Number(header.layers) || 0 }, (_, layer) => `layer ${layer}`);
  return { ...emptyTrace(what, names, layers, 1), idBytes: header.ids === "u16" ? 2 : 1 };
}

/// Bytes of base64.
export const bytesOf = (text) => Uint8Array.from(atob(text), (unit) => unit.charCodeAt(0));

/// Appends the tokens of a chunk: `route` is `{t0, k, data, texts}` (docs/serving-page.md), `text` what the chunk adds to the answer.
/// Returns the number of tokens appended. Throws for data that are no whole tokens.
export function appendRoute(trace, route, text) {
  const data = bytesOf(route.data), { idBytes } = trace, numLayers = trace.layers.length, k = route.k ?? 1;
  const tokenBytes = numLayers * k * (idBytes + 1);
  if (tokenBytes === 0 || data.length % tokenBytes !== 0) {
    throw new Error(`The route of token ${trace.tokens.length} has ${data.length} bytes; tokens of ${tokenBytes} bytes were announced.`);
  }
  if (trace.tokens.length === 0) trace.k = k;
  const from = trace.tokens.length, count = data.length / tokenBytes;
  if (k !== trace.k || (route.t0 ?? from) !== from) {
    throw new Error(`The route begins at token ${route.t0}; token ${from} was expected.`);
  }
  reserve(trace, count);
  const none = idBytes === 2 ? 0xffff : 0xff;
  for (let i = 0, place = placeOf(trace, from, 0); i < count * numLayers * k; ++i, ++place) {
    const at = i * (idBytes + 1);
    const id = idBytes === 2 ? data[at] | (data[at + 1] << 8) : data[at];
    trace.ids[place] = id === none || id >= trace.adapters.length ? -1 : id;
    trace.shares[place] = data[at + idBytes] / 255;
  }
  const texts = Array.isArray(route.texts) && route.texts.length === count ? route.texts : [...Array(Math.max(0, count - 1)).fill(""), text];
  for (let i = 0; i < count; ++i) trace.tokens.push(String(texts[i]));
  countVotes(trace, from);
  return count;
}

/// A trace of an answer as a document that `traceOfDocument` reads: a projection per layer, with the favourites alone.
export function documentOf(trace, base) {
  const places = trace.tokens.length * trace.layers.length;
  return {
    quiver_trace: 1, base, method: trace.what, options: {}, what: "an answer: of each layer the adapter that its projections favour",
    combine: null, adapters: trace.adapters, tokens: trace.tokens.map((text) => ({ id: null, text })),
    projections: trace.layers.map((_, layer) => ({
      path: `layers.${layer}.favourite`, choices: trace.tokens.map((_, token) => choicesAt(trace, token, layer)),
    })),
    statistics: { shares: trace.adapters.map((_, n) => (places ? trace.votes[n] / places : 0)) },
  };
}

// --- Of a document ---

/// The layer's number and the projection's type by its path: `model.layers.3.self_attn.q_proj` is layer 3, `q_proj`.
function partsOf(path) {
  const parts = String(path).split("."), number = parts.findIndex((part) => /^\d+$/.test(part));
  return { layer: number < 0 ? -1 : Number(parts[number]), type: parts.at(-1) };
}

/// Checks a document of `quiver route --json`; throws an Error that says what is wrong.
export function checkDocument(document) {
  if (document?.quiver_trace === undefined) throw new Error("This is no trace of routes: it has no member 'quiver_trace'.");
  if (document.quiver_trace !== 1) throw new Error(`This trace is of version ${document.quiver_trace}; the page reads version 1.`);
  const { adapters, tokens, projections } = document;
  for (const [name, list] of Object.entries({ adapters, tokens, projections })) {
    if (!Array.isArray(list)) throw new Error(`This trace is damaged: '${name}' is no list.`);
  }
  for (const { path, choices } of projections) {
    if (!Array.isArray(choices) || choices.length !== tokens.length) {
      throw new Error(`This trace is damaged: '${path}' has no choices for each of ${tokens.length} tokens.`);
    }
  }
  return document;
}

/// The types of projections in a document: q_proj, k_proj, ...
export const typesOf = (document) => [...new Set(document.projections.map(({ path }) => partsOf(path).type))];

/// The trace of a document at the projections of one type, or at all (""): of each layer the mean weights, the four largest.
export function traceOfDocument(document, type = "") {
  const byLayer = new Map();
  for (const projection of document.projections) {
    const parts = partsOf(projection.path);
    if (type !== "" && parts.type !== type) continue;
    byLayer.set(parts.layer, [...(byLayer.get(parts.layer) ?? []), projection]);
  }
  const numbers = [...byLayer.keys()].sort((a, b) => a - b);
  const trace = emptyTrace(String(document.method ?? ""), document.adapters.map(String), numbers.map((n) => (n < 0 ? "other" : `layer ${n}`)), 4);
  reserve(trace, document.tokens.length);
  trace.tokens = document.tokens.map((token) => String(token.text ?? ""));
  const sums = new Float64Array(trace.adapters.length);
  numbers.forEach((number, layer) => {
    const projections = byLayer.get(number);
    for (let token = 0; token < trace.tokens.length; ++token) {
      const touched = new Set();
      for (const { choices } of projections) {
        for (const [adapter, weight] of choices[token]) {
          if (!(adapter in sums)) throw new Error(`This trace is damaged: it names adapter ${adapter} of ${sums.length}.`);
          sums[adapter] += weight / projections.length;
          touched.add(adapter);
        }
      }
      const place = placeOf(trace, token, layer);
      trace.ids.fill(-1, place, place + trace.k);
      [...touched].sort((a, b) => sums[b] - sums[a] || a - b).slice(0, trace.k).forEach((adapter, i) => {
        trace.ids[place + i] = adapter;
        trace.shares[place + i] = sums[adapter];
      });
      for (const adapter of touched) sums[adapter] = 0;
    }
  });
  countVotes(trace, 0);
  return trace;
}
