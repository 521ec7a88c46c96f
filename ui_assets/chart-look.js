// The chart's colours in both themes, its lines' dashes, its numbers and its margins. Nothing here knows of a run's points.

export const MARGIN = { l: 58, r: 14, t: 8, b: 40 };
export const ACTIVE = ["queued", "starting", "running", "saving"];
const LIGHT = { ink: "#1b2530", muted: "#54616f", line: "#dde2e6", panel: "#ffffff", accent: "#0d6560", good: "#23692f",
  bad: "#a8251b", soft: "#e3f1ee", runs: ["#0d6a64", "#b3470b", "#4156b8", "#8f2f72", "#47711a", "#8a5f00", "#12688f", "#b02a4b",
    "#7040c8", "#0a7d43", "#6b4423", "#cc1f8f"] };
const DARK = { ink: "#e4e8ec", muted: "#a3afba", line: "#2c353e", panel: "#181f26", accent: "#62cbbb", good: "#7fd08b",
  bad: "#ff9a8d", soft: "#15332f", runs: ["#5fd0bf", "#ff9d5c", "#9db1ff", "#ee9ad2", "#a7d36b", "#e8c155", "#70c4ee", "#ff98ae",
    "#c3a1ff", "#6fe08a", "#d9b08c", "#ff85dd"] };

export const LOOKS = [LIGHT, DARK];

// The page's colours, with our own where it has none.
export function theme(element) {
  const base = document.body.classList.contains("dark") ? DARK : LIGHT;
  const style = getComputedStyle(element);
  const read = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const colours = { runs: base.runs.map((colour, i) => read(`--wb-run-${i + 1}`, colour)), font: style.fontFamily };
  for (const name of ["ink", "muted", "line", "panel", "accent", "good", "bad", "soft"]) colours[name] = read(`--wb-${name}`, base[name]);
  return colours;
}


// The server gives every run its colour, see workbench/colours.py; before it has answered there is nothing to draw.
export function colourOf(state, run) {
  return state.theme.runs[(state.colours.get(run) || 1) - 1];
}

// A source of a mixture has the colour of its place in it, on every page.
export function sourceColour(state, place) {
  return state.theme.runs[place % state.theme.runs.length];
}

const DASHES = ["solid", "7px,3px", "2px,3px"];
const GHOST = "1px,4px"; // an imported log

// Of runs shown together that have one colour, there being more runs than colours, the later ones are dashed.
export function dashOf(state, run) {
  const { runs } = state.view;
  if (state.series?.get(run)?.ghost) return GHOST;
  const same = runs.slice(0, runs.indexOf(run)).filter((other) => state.colours.get(other) === state.colours.get(run));
  return DASHES[Math.min(same.length, DASHES.length - 1)];
}

// A curve's colour and dash: the run's, or of a source's curve that source's, dashed by its run where several are shown.
export function colourOfCurve(state, { series, place }) {
  return place === undefined ? colourOf(state, series.run) : sourceColour(state, place);
}

export function dashOfCurve(state, { series, place }) {
  if (place === undefined) return dashOf(state, series.run);
  return DASHES[Math.min(state.view.runs.indexOf(series.run), DASHES.length - 1)];
}

// Plotly reads a little HTML in its texts.
export function escape(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

export function number(value) {
  if (!Number.isFinite(value)) return "n/a";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(3);
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 7 : 5 });
}
