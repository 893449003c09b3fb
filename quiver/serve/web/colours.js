// Colours and letters of adapters. The colours themselves, for light and dark, are --c0 to --c11 of style.css.

export const numColours = 12;
export const grey = numColours, accent = numColours + 1;

/// FNV-1a of the name's UTF-16 units.
export function hashOf(name) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; ++i) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

function assign(names) {
  const used = new Array(numColours).fill(0), colours = new Map();
  [...new Set(names)].sort().forEach((name, rank) => {
    const most = Math.floor(rank / numColours);
    let colour = hashOf(name) % numColours;
    while (used[colour] > most) colour = (colour + 1) % numColours;
    used[colour] += 1;
    colours.set(name, colour);
  });
  return colours;
}

let library = new Map();
/// The names of all adapters that are served: their colours are the same in every view.
export function setLibrary(names) { library = assign(names); }

/// The colour of each name. A name asks for the colour of its hash. No colour is used twice more often than another: where it is taken, the
/// next that is free follows, names in their sorted order. Names that are not all of the library get their colours among themselves.
export function coloursOf(names) {
  const colours = names.every((name) => library.has(name)) ? library : assign(names);
  return names.map((name) => colours.get(name));
}

/// A to Z, then AA, AB, ...: the letters of the adapter at this index.
export function lettersOf(index) {
  let text = "";
  for (let rest = index; rest >= 0; rest = Math.floor(rest / 26) - 1) text = String.fromCharCode(65 + (rest % 26)) + text;
  return text;
}

const steps = 24;
let ramps = null;
const channels = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((value) => (value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/// The colours as the style sheet has them now, each mixed with the background in steps: `fill` of a cell and `ink` of the letters on it.
function makeRamps() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => channels(style.getPropertyValue(name).trim());
  const background = read("--bg");
  return Array.from({ length: numColours + 2 }, (_, colour) => {
    const full = read(colour === grey ? "--none" : colour === accent ? "--accent" : `--c${colour}`);
    return Array.from({ length: steps + 1 }, (_, step) => {
      const rgb = full.map((value, i) => Math.round(background[i] + (value - background[i]) * (0.12 + (0.88 * step) / steps)));
      return { fill: `rgb(${rgb.join(" ")})`, ink: luminance(rgb) > 0.18 ? "#000" : "#fff" };
    });
  });
}

/// What a cell looks like: the colour at a share of 0 to 1.
export function shade(colour, share) {
  ramps ??= makeRamps();
  return ramps[colour][Math.round(steps * Math.min(1, Math.max(0, share)))];
}

/// Calls `redraw` when the page turns dark or light.
const redraws = new Set();
export const onTheme = (redraw) => redraws.add(redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  ramps = null;
  for (const redraw of redraws) redraw();
});
