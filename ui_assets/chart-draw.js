// One panel as a Plotly figure: which lines, at which resolution, in which colours. Reads a series, changes nothing.
// What panels and axes there are comes with the chart's options, see view.py.

const version = new URL(import.meta.url).search;
const { envelope, interpolate } = await import(`./chart-series.js${version}`);
const { faint, lowerBound, smoothed, widthOf } = await import(`./chart-smooth.js${version}`);
const { logTicks, onAxis, timeTicks } = await import(`./chart-axes.js${version}`);

export const MARGIN = { l: 58, r: 14, t: 8, b: 40 };
const MAX_BANDS = 400;
export const ACTIVE = ["queued", "starting", "running", "saving"];
const KINDS = [
  { kind: "save", name: "saves", symbol: "line-ns-open", size: 9, colour: "muted" },
  { kind: "resume", name: "resumes", symbol: "triangle-up", size: 9, colour: "accent" },
  { kind: "alert", name: "alerts", symbol: "diamond", size: 10, colour: "bad" },
];

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

const DASHES = ["solid", "7px,3px", "2px,3px"];

// Of runs shown together that have one colour, there being more runs than colours, the later ones are dashed.
export function dashOf(state, run) {
  const { runs } = state.view;
  const same = runs.slice(0, runs.indexOf(run)).filter((other) => state.colours.get(other) === state.colours.get(run));
  return DASHES[Math.min(same.length, DASHES.length - 1)];
}

// The width of smoothing in steps: 0 for none. "auto" goes by the longest stretch of a run in sight.
export function smoothingWidth(state) {
  const { smooth, x } = state.view;
  if (smooth !== "auto") return widthOf(smooth, 0);
  const lengths = state.shown.map((series) => {
    const [steps, axis] = [series.x("step"), series.x(x)];
    const [from, to] = state.range.map((value) => interpolateAt(axis, steps, value));
    return to - from || 0;
  });
  return widthOf("auto", Math.max(0, ...lengths));
}

// The curves of one panel: {series, steps, x, raw, smooth | null, settled, points: bool}, for every run that has something to
// show. The values of `smooth` from `settled` on change with the points that follow.
export function curves(state, id) {
  const base = state.view.minus ? state.shown.find((series) => series.run === state.view.minus) : null;
  const found = [];
  for (const series of state.shown) {
    if (base && series === base) continue;
    const curve = id === "validation" ? validationCurve(state, series) : columnCurve(state, series, id);
    if (!curve || !curve.x.length) continue;
    found.push(base ? difference(state, id, curve, base) : curve);
  }
  return found;
}

function columnCurve(state, series, id) {
  const { column, smooth } = state.options.panels[id];
  if (!series.columns[column]) return null;
  const width = smooth ? smoothingWidth(state) : 0;
  const made = width > 1 ? series.smooth(column, width) : null;
  return { series, steps: series.x("step"), x: series.x(state.view.x), raw: series.values(column), smooth: made && made.y, settled: made && made.settled };
}

function validationCurve(state, series) {
  const evals = series.validation();
  return {
    series, points: true, smooth: null, steps: evals.map((mark) => mark.step),
    x: Float64Array.from(evals, (mark) => series.xOfStep(mark.step, state.view.x)),
    raw: Float64Array.from(evals, (mark) => mark.value),
  };
}

// A - B at the x of A's points; the difference is smoothed, not the curves it is made of.
function difference(state, id, curve, base) {
  const { series } = curve;
  const width = smoothingWidth(state);
  const key = `minus ${base.run} ${base.version} ${id} ${state.view.x} ${width}`;
  for (const other of series.made.keys()) if (other.startsWith("minus ") && other.includes(` ${id} `) && other !== key) series.made.delete(other);
  return series.remember(key, () => {
    const from = id === "validation" ? validationCurve(state, base) : columnCurve(state, base, id);
    const there = from ? interpolate(from.x, from.raw, curve.x) : new Float64Array(curve.x.length).fill(NaN);
    const raw = curve.raw.constructor === Float32Array ? Float64Array.from(curve.raw) : curve.raw.slice();
    for (let i = 0; i < raw.length; i++) raw[i] -= there[i];
    const steps = series.step.subarray(0, series.n);
    return { ...curve, raw, smooth: curve.smooth ? smoothed(raw, steps, width) : null };
  });
}

// [x0, x1] of everything there is.
export function wholeRange(state) {
  let low = Infinity;
  let high = -Infinity;
  for (const series of state.shown) {
    const x = series.x(state.view.x);
    if (!x.length) continue;
    let first = 0;
    while (state.view.logx && first < x.length - 1 && !(x[first] > 0)) first++;
    if (Number.isFinite(x[first])) low = Math.min(low, x[first]);
    if (Number.isFinite(x[x.length - 1])) high = Math.max(high, x[x.length - 1]);
  }
  if (!(low <= high)) return [state.view.logx ? 1 : 0, state.view.logx ? 100 : 1];
  if (low === high) return state.view.logx ? [low / 1.5, high * 1.5 || 1] : [low - 1, high + 1];
  return state.view.logx ? [low, high * (high / low) ** 0.01] : [low - 0.01 * (high - low), high + 0.01 * (high - low)];
}

// Plotly's data and layout of a panel of this size. `state`: view, shown (series), colours (run -> index), theme.
export function figure(state, id, width, height) {
  const panel = state.options.panels[id];
  const { view, theme: look } = state;
  const range = state.range;
  const logy = Boolean(view.logy && panel.log && !view.minus);
  const columns = Math.max(50, width - MARGIN.l - MARGIN.r);
  const extent = { low: Infinity, high: -Infinity };
  const data = [];
  const line = (x, y, style, more = {}) => {
    widen(extent, x, y, range, logy);
    data.push({ type: "scatter", mode: "lines", x, y, hoverinfo: "skip", line: { shape: "linear", ...style }, ...more });
  };
  const shown = curves(state, id);
  for (const { series, x, raw, smooth, points } of shown) {
    const colour = colourOf(state, series.run);
    if (panel.column && !view.minus) {
      for (const piece of series.old) {
        if (!piece.columns[panel.column]) continue;
        const old = envelope(series.xOfOld(piece, view.x), piece.columns[panel.column], ...range, columns, view.logx);
        line(old.x, old.y, { color: colour, width: 1, dash: "dot" }, { opacity: 0.3 });
      }
    }
    const thin = envelope(x, raw, ...range, columns, view.logx);
    if (points) line(thin.x, thin.y, { color: colour, width: 1.5 }, { mode: "lines+markers", marker: { color: colour, size: 6 } });
    else line(thin.x, thin.y, { color: smooth ? faint(colour, look.panel) : colour, width: smooth ? 1 : 1.3, dash: smooth ? undefined : dashOf(state, series.run) }, lone(thin.y) ? { mode: "lines+markers" } : {});
  }
  for (const { series, x, smooth, settled } of shown) {
    if (!smooth) continue;
    const open = ACTIVE.includes(series.state) ? settled : smooth.length; // the end of a run at work, which is drawn as open
    const color = colourOf(state, series.run);
    for (const [from, to, dash] of [[0, open + 1, dashOf(state, series.run)], [open, smooth.length, "2px,2px"]]) {
      const bold = envelope(x.subarray(from, to), smooth.subarray(from, to), ...range, columns, view.logx);
      if (bold.x.length < 2 && data.length) continue;
      line(bold.x, bold.y, { color, width: 2.2, dash });
    }
  }
  const layout = frame(state, id, width, height, logy);
  if (panel.marks) data.push(...markTraces(state, layout));
  if (id === "validation" && !view.minus) yardsticks(state, layout, data, extent);
  if (view.shade) layout.shapes.push(...bands(state));
  if (view.minus) layout.shapes.push(level(0, look.muted, "solid"));
  layout.yaxis.range = state.yranges[id] || yRange(extent, logy, Boolean(view.minus));
  if (logy) Object.assign(layout.yaxis, logTicks(layout.yaxis.range.map((value) => 10 ** value), (height - MARGIN.t - MARGIN.b) / 24));
  return { data, layout };
}

// One point between gaps is not a line.
function lone(values) {
  return values.some((value, i) => Number.isFinite(value) && !Number.isFinite(values[i - 1] ?? NaN) && !Number.isFinite(values[i + 1] ?? NaN));
}

function widen(extent, x, y, [x0, x1], log) {
  for (let i = 0; i < y.length; i++) {
    if (x[i] < x0 || x[i] > x1 || !Number.isFinite(y[i]) || (log && !(y[i] > 0))) continue;
    if (y[i] < extent.low) extent.low = y[i];
    if (y[i] > extent.high) extent.high = y[i];
  }
}

function yRange({ low, high }, log, signed) {
  if (!(low <= high)) return log ? [-1, 1] : [0, 1];
  if (signed) { low = Math.min(low, 0); high = Math.max(high, 0); }
  const [a, b] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
  const even = b - a <= 1e-5 * Math.max(Math.abs(a), Math.abs(b)); // constant but for rounding
  const room = even ? Math.abs(a) * 0.05 || 0.5 : 0.05 * (b - a);
  return [a - room, b + room];
}

function frame(state, id, width, height, logy) {
  const { view, theme: look } = state;
  const axis = { color: look.muted, gridcolor: look.line, linecolor: look.line, zeroline: false, ticks: "outside", tickcolor: look.line,
    exponentformat: "B", minexponent: 3, automargin: false, fixedrange: state.cursor.touch };
  return {
    width, height, margin: MARGIN, showlegend: false, hovermode: false, dragmode: state.cursor.touch ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes: [], annotations: [],
    font: { family: look.font, size: 12, color: look.muted },
    xaxis: { ...axis, ...timeTicks(state), ...(view.logx ? logTicks(state.range, (width - MARGIN.l - MARGIN.r) / 56) : {}), type: view.logx ? "log" : "linear",
      range: onAxis(state.range, view.logx), title: { text: state.options.axes[view.x].title, standoff: 6 }, exponentformat: view.x === "flops" ? "power" : "B" },
    yaxis: { ...axis, type: logy ? "log" : "linear", exponentformat: state.options.panels[id].exponent || "B", nticks: 7 },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  };
}

// Every mark of a run with its place on the x axis: [{kind, x, step, text}]
export function marksOf(state, series) {
  const found = [];
  for (const mark of series.marks) {
    if (mark.kind !== "save" && mark.kind !== "alert") continue;
    const step = series.stepOf(mark);
    found.push({ kind: mark.kind, step, x: series.xOfStep(step, state.view.x), text: mark.text || "saved" });
  }
  for (const { attempt, step } of series.attempts.slice(1)) {
    found.push({ kind: "resume", step, x: series.xOfStep(step, state.view.x), text: `resumed, attempt ${attempt}` });
  }
  return found;
}

function markTraces(state) {
  const all = state.shown.flatMap((series) => marksOf(state, series));
  return KINDS.map(({ kind, symbol, size, colour }) => {
    const there = all.filter((mark) => mark.kind === kind && mark.x >= state.range[0] && mark.x <= state.range[1]);
    return {
      type: "scatter", mode: "markers", yaxis: "y2", hoverinfo: "skip", cliponaxis: true, x: there.map((mark) => mark.x),
      y: there.map(() => 0.03), marker: { symbol, size, color: state.theme[colour], line: { color: state.theme[colour], width: 1.5 } },
    };
  }).filter((trace) => trace.x.length);
}

function level(y, color, dash) {
  return { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below", line: { color, width: 1.3, dash } };
}

// GPT-2's loss on the same tokens, where the run measured itself against it, and where each run passed it.
function yardsticks(state, layout, data, extent) {
  const lines = new Map();
  for (const series of state.shown) {
    const known = series.validation().filter((mark) => mark.yardstick).pop();
    if (known) {
      const key = `${known.yardstick.of} ${known.yardstick.loss} ${known.text}`;
      if (!lines.has(key)) lines.set(key, { ...known.yardstick, runs: [] });
      lines.get(key).runs.push(series.run);
    }
    for (const mark of series.marks) {
      if (mark.kind === "passed" && !series.overwritten(mark)) passed(state, layout, data, series, mark);
    }
  }
  for (const { of, loss, runs } of lines.values()) {
    extent.low = Math.min(extent.low, loss);
    extent.high = Math.max(extent.high, loss);
    layout.shapes.push(level(loss, state.theme.ink, "dash"));
    const whose = lines.size > 1 ? ` on the text of ${runs.join(", ")}` : " on this text";
    layout.annotations.push({ xref: "paper", x: 0.01, y: state.view.logy ? Math.log10(loss) : loss, xanchor: "left", yanchor: "bottom",
      showarrow: false, bgcolor: state.theme.panel, text: escape(`${of}: ${number(loss)}${whose}`), font: { color: state.theme.ink, size: 12 } });
  }
}

function passed(state, layout, data, series, mark) {
  const x = series.xOfStep(mark.step, state.view.x);
  if (!(x >= state.range[0] && x <= state.range[1])) return;
  const colour = colourOf(state, series.run);
  data.push({ type: "scatter", mode: "markers", x: [x], y: [mark.value], hoverinfo: "skip",
    marker: { symbol: "star", size: 13, color: colour, line: { color: state.theme.panel, width: 1 } } });
  const [ax, ay] = onAxis([x], state.view.logx).concat(onAxis([mark.value], state.view.logy));
  const right = (onAxis([x], state.view.logx)[0] - onAxis(state.range, state.view.logx)[0])
    > (onAxis(state.range, state.view.logx)[1] - onAxis(state.range, state.view.logx)[0]) / 2;
  layout.annotations.push({ x: ax, y: ay, xanchor: right ? "right" : "left", yanchor: "bottom", showarrow: false, yshift: 6, bgcolor: state.theme.panel,
    text: escape(`passed ${mark.yardstick?.of || "the yardstick"} at step ${mark.step.toLocaleString("en")}`), font: { color: colour, size: 12 } });
}

// Intervals, or the same part of every period, as bands behind the curves.
function bands(state) {
  const { shade, x } = state.view;
  const series = state.shown.find((one) => one.n);
  if (!series) return [];
  const there = (step) => (x === "step" ? step : interpolateAt(series.step.subarray(0, series.n), series.x(x), step));
  return intervals(state, series, shade).map(([a, b]) => [there(a), there(b)]).filter(([a, b]) => b > state.range[0] && a < state.range[1])
    .map(([a, b]) => ({ type: "rect", yref: "paper", y0: 0, y1: 1, x0: a, x1: b, layer: "below", line: { width: 0 }, fillcolor: state.theme.accent, opacity: 0.13 }));
}

// In steps, and no more of a period's than can be told apart.
function intervals(state, series, shade) {
  if (Array.isArray(shade)) return shade;
  const steps = series.step.subarray(0, series.n);
  const axis = series.x(state.view.x);
  const last = steps[series.n - 1];
  let [from, to] = state.view.x === "step" ? state.range : state.range.map((value) => interpolateAt(axis, steps, value));
  from = Number.isFinite(from) ? Math.max(from, steps[0]) : steps[0];
  to = Number.isFinite(to) ? Math.min(to, last) : last;
  const perStep = shade.unit === "tokens" ? series.tokens[series.n - 1] / last : 1;
  const [period, phase] = [shade.period / perStep, shade.phase / perStep];
  if ((to - from) / period > MAX_BANDS) return [];
  const found = [];
  for (let k = Math.floor((from - phase) / period); phase + k * period < to; k++) found.push([phase + k * period, phase + (k + shade.share) * period]);
  return found;
}

export function interpolateAt(xs, ys, x) {
  if (!xs.length) return NaN;
  if (x <= xs[0]) return ys[0];
  if (x >= xs[xs.length - 1]) return ys[ys.length - 1];
  const right = lowerBound(xs, x);
  return ys[right - 1] + ((x - xs[right - 1]) / (xs[right] - xs[right - 1])) * (ys[right] - ys[right - 1]);
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
