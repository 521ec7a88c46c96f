// One panel as a Plotly figure: which lines, at which resolution, in which colours. Reads a series, changes nothing.
// What panels and axes there are comes with the chart's options, see view.py.

const version = new URL(import.meta.url).search;
const { envelope } = await import(`./chart-series.js${version}`);
const { faint, lowerBound } = await import(`./chart-smooth.js${version}`);
const { logTicks, onAxis, stepTicks, timeTicks } = await import(`./chart-axes.js${version}`);
const { ACTIVE, MARGIN, colourOf, colourOfCurve, dashOfCurve, escape, number } = await import(`./chart-look.js${version}`);
const { areas, bandsIn } = await import(`./chart-bands.js${version}`);
const { curves, interpolateAt, marksOf, pointsIn, referenceOf, unitOf } = await import(`./chart-curves.js${version}`);

const FEW = 3; // runs whose raw lines are drawn at full strength; of more, in the faintest that keeps a contrast of 3 to 1
const MARKER = [3.5, 8]; // size of a validation point, by how many lie side by side
const BEGINNING = 0.03; // share of the axis whose losses may lie above the frame: they are many times those that matter
const NARROW = 520; // pixels, too few for a line of words
const MUCH = 1.6; // times higher the panel would have to be for them
const MAX_BANDS = 400;
const KINDS = [
  { kind: "save", name: "❘ saved", symbol: "line-ns-open", size: 9, colour: "muted" },
  { kind: "resume", name: "▲ resumed", symbol: "triangle-up", size: 9, colour: "accent" },
  { kind: "alert", name: "◆ alert", symbol: "diamond", size: 10, colour: "bad" },
  { kind: "spike", name: "▼ spike", symbol: "triangle-down", size: 9, colour: "bad", y: 0.97 },
];

// Plotly's data and layout of a panel of this size, and `cut`, where the losses of the first steps are left out. `state`: view, shown (series), colours (run -> index), theme.
export function figure(state, id, width, height) {
  const panel = state.options.panels[id];
  const { view, theme: look } = state;
  const logy = Boolean(view.logy && panel.log && !view.minus);
  const drawing = { state, id, logy, columns: Math.max(50, width - MARGIN.l - MARGIN.r), extent: { low: Infinity, high: -Infinity }, data: [] };
  const shown = curves(state, id);
  if (panel.loss && panel.column) drawing.data.push(...areas(state, (series) => (unitOf(state) === "bits" ? series.perByte() : 1)));
  for (const curve of shown) rawLine(drawing, curve, shown.length);
  for (const curve of shown) if (curve.smooth) smoothLine(drawing, curve);
  for (const curve of pointsIn(state, id)) pointsLine(drawing, curve);
  const layout = frame(state, id, width, height, logy);
  const { data, extent } = drawing;
  const cut = cutAt(drawing, shown, panel);
  if (cut) extent.high = cut;
  if (panel.host && data.length) extent.low = 0; // a load
  if (panel.marks) data.push(...markTraces(state, layout));
  if (panel.loss && !view.minus && data.length) yardsticks(drawing, layout);
  if (view.shade) layout.shapes.push(...bands(state));
  layout.shapes.push(...openStep(state));
  if (view.minus) layout.shapes.push(level(0, look.muted, "solid"));
  layout.yaxis.range = state.yranges[id] || yRange(extent, logy, Boolean(view.minus));
  if (logy) Object.assign(layout.yaxis, logTicks(layout.yaxis.range.map((value) => 10 ** value), (height - MARGIN.t - MARGIN.b) / 24));
  return { data, layout, cut };
}

// A figure as it was before plotly had it, and whether another one looks the same: then nothing need be drawn.
export function copied({ data, layout }) {
  return { layout: JSON.stringify(layout), data: data.map(({ x, y, ...look }) => ({ x, y, look: JSON.stringify(look) })) };
}

export function alike(seen, { data, layout }) {
  return seen.layout !== null && seen.data.length === data.length && seen.layout === JSON.stringify(layout)
    && data.every(({ x, y, ...look }, i) => sameNumbers(seen.data[i].x, x) && sameNumbers(seen.data[i].y, y) && seen.data[i].look === JSON.stringify(look));
}

function sameNumbers(one, other) {
  return one.length === other.length && one.every((value, i) => Object.is(value, other[i]));
}

// A line of Plotly's through points of a curve, as many as there are pixels for.
function line({ state, columns, extent, logy, data }, x, y, look, more = {}) {
  const thin = envelope(x, y, ...state.range, columns, state.view.logx);
  const style = typeof look === "function" ? look(thin.all) : look;
  if (thin.x.length < (more.least || 1)) return;
  widen(extent, thin.x, thin.y, state.range, logy);
  const mode = more.mode || (more.least ? "lines" : lone(thin.y) ? "lines+markers" : "lines");
  data.push({ type: "scatter", mode, x: thin.x, y: thin.y, hoverinfo: "skip", line: { shape: "linear", ...style },
    ...(more.marker ? { marker: more.marker } : {}), ...(more.opacity ? { opacity: more.opacity } : {}) });
}

// Every step, at full strength: it is what was measured. Before it, dotted, what a resume has overwritten.
function rawLine(drawing, curve, count) {
  const { state, id } = drawing;
  const { series, x, raw, smooth, points, scale, source } = curve;
  const column = source === undefined ? state.options.panels[id].column : `loss.${source}`;
  const colour = colourOfCurve(state, curve);
  if (points) return pointsLine(drawing, curve);
  for (const piece of state.view.minus ? [] : series.old) {
    const values = piece.columns[column];
    if (values) line(drawing, series.xOfOld(piece, state.view.x), scale === 1 ? values : values.map((v) => v * scale), { color: colour, width: 1, dash: "dot" }, { opacity: 0.45 });
  }
  return line(drawing, x, raw, (all) => {
    if (!smooth) return { color: colour, width: 1.3, dash: dashOfCurve(state, curve) };
    return all && count <= FEW ? { color: colour, width: 1 } : { color: faint(colour, state.theme.panel), width: 0.8 }; // a band of noise is no line
  });
}

// Where the frame ends instead of at the losses of the very first steps, or null. A zoom shows all there is.
function cutAt({ state, id, logy, extent }, shown, { loss }) {
  const { range, minus, logx } = state.view;
  if (!loss || range || minus || logx || logy || state.yranges[id]) return null;
  const [a, b] = state.range;
  let high = -Infinity;
  for (const { x, raw } of shown) {
    const first = lowerBound(x, a + BEGINNING * (b - a));
    for (let i = first; i < raw.length; i++) if (raw[i] > high) high = raw[i];
  }
  return extent.high - extent.low > MUCH * (high - extent.low) && high > extent.low ? high : null;
}

// The smoothed line with a rim of the background's colour, which tells it from the raw one below it. The end of a run at
// work changes with the steps to come, and is drawn as open.
function smoothLine(drawing, curve) {
  const { state } = drawing;
  const { series, x, smooth, settled } = curve;
  const open = ACTIVE.includes(series.state) ? settled : smooth.length;
  const color = colourOfCurve(state, curve);
  line(drawing, x, smooth, { color: state.theme.panel, width: 3.8 }, { least: 2 });
  for (const [from, to, dash] of [[0, open + 1, dashOfCurve(state, curve)], [open, smooth.length, "2px,2px"]]) {
    line(drawing, x.subarray(from, to), smooth.subarray(from, to), { color, width: 2, dash }, { least: 2 });
  }
}

function pointsLine(drawing, curve) {
  const { state } = drawing;
  const { x, raw } = curve;
  const color = colourOfCurve(state, curve);
  const [a, b] = state.range;
  const count = x.reduce((sum, value) => sum + (value >= a && value <= b), 0);
  const size = Math.min(MARKER[1], Math.max(MARKER[0], drawing.columns / (4 * count || 1)));
  line(drawing, x, raw, { color, width: 1.2, dash: dashOfCurve(state, curve) }, { mode: "lines+markers",
    marker: { color, size, symbol: "circle", line: { color: state.theme.panel, width: size > 5 ? 1.2 : 0.6 } } });
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
  // Labels that are short may reach past the figure: to hide those plotly measures each, and has the page laid out each time.
  const axis = { color: look.muted, gridcolor: look.line, linecolor: look.line, zeroline: false, ticks: "outside", tickcolor: look.line,
    exponentformat: "B", minexponent: 3, automargin: false, ticklabeloverflow: "allow", fixedrange: state.cursor.touch };
  return {
    width, height, margin: MARGIN, showlegend: false, hovermode: false, dragmode: state.cursor.touch ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes: [], annotations: [],
    font: { family: look.font, size: 12, color: look.muted },
    xaxis: { ...axis, ticklabeloverflow: view.x === "time" ? "hide past div" : "allow", ...timeTicks(state), ...stepTicks(state), ...(view.logx ? logTicks(state.range, (width - MARGIN.l - MARGIN.r) / 56) : {}), type: view.logx ? "log" : "linear",
      range: onAxis(state.range, view.logx), title: { text: state.options.axes[view.x].title, standoff: 6 }, exponentformat: view.x === "flops" ? "power" : "B" },
    yaxis: { ...axis, type: logy ? "log" : "linear", exponentformat: state.options.panels[id].exponent || "B", nticks: 7 },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  };
}

// What the signs at the foot and the head of a panel mean, as far as there are any.
export function markKey(state) {
  const kinds = new Set(state.shown.flatMap((series) => marksOf(state, series).map((mark) => mark.kind)));
  return [...bandsIn(state).map(({ words }) => `▒ ${words}`), ...KINDS.filter(({ kind }) => kinds.has(kind)).map(({ name }) => name)];
}

function markTraces(state) {
  const all = state.shown.flatMap((series) => marksOf(state, series));
  return KINDS.map(({ kind, symbol, size, colour, y = 0.03 }) => {
    const there = all.filter((mark) => mark.kind === kind && mark.x >= state.range[0] && mark.x <= state.range[1]);
    return {
      type: "scatter", mode: "markers", yaxis: "y2", hoverinfo: "skip", cliponaxis: true, x: there.map((mark) => mark.x),
      y: there.map(() => y), marker: { symbol, size, color: state.theme[colour], line: { color: state.theme[colour], width: 1.5 } },
    };
  }).filter((trace) => trace.x.length);
}

// A thin line at the step whose card is open, if it is that of a run shown.
function openStep(state) {
  const series = state.step && state.shown.find((one) => one.run === state.step.run);
  const x = series ? series.xOfStep(state.step.step, state.view.x) : NaN;
  if (!(x >= state.range[0] && x <= state.range[1])) return [];
  return [{ type: "line", name: "open step", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, layer: "above", line: { color: state.theme.ink, width: 1 } }];
}

function level(y, color, dash) {
  return { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below", line: { color, width: 1.3, dash } };
}

// GPT-2's loss on the same text, where it is known, with the way it was measured; and where each run passed it.
function yardsticks({ state, data, extent, columns }, layout) {
  const lines = new Map();
  for (const series of state.shown) {
    const known = referenceOf(state, series);
    if (known) lines.set(known.key, { ...known, runs: [...(lines.get(known.key)?.runs || []), series.run] });
    for (const mark of series.marks) {
      if (mark.kind === "passed" && !series.overwritten(mark)) passed(state, layout, data, series, mark);
    }
  }
  for (const { of, value, unit, windows, runs } of lines.values()) {
    if (!state.view.range) widen(extent, [state.range[0]], [value], state.range, false);
    layout.shapes.push(level(value, state.theme.ink, "dash"));
    const narrow = columns < NARROW; // the text and the windows are then told in a line of their own
    const whose = lines.size > 1 || state.shown.length > runs.length ? `the held-out text of ${runs.join(", ")}` : "this held-out text";
    const words = narrow ? [`${of}: ${number(value)}${unit}`, `on ${whose}`] : [`${of} on ${whose}: ${number(value)}${unit}${windows}`];
    layout.annotations.push({ text: words.map(escape).join("<br>"), xref: "paper", x: 0.01, y: state.view.logy ? Math.log10(value) : value, xanchor: "left", yanchor: "bottom", yshift: 3,
      showarrow: false, bgcolor: state.theme.panel, align: "left", font: { color: state.theme.ink, size: 12 } });
  }
}

function passed(state, layout, data, series, mark) {
  const x = series.xOfStep(mark.step, state.view.x);
  const value = unitOf(state) === "bits" ? mark.bits : mark.value;
  if (!(x >= state.range[0] && x <= state.range[1]) || !Number.isFinite(value)) return;
  const colour = colourOf(state, series.run);
  data.push({ type: "scatter", mode: "markers", x: [x], y: [value], hoverinfo: "skip",
    marker: { symbol: "star", size: 13, color: colour, line: { color: state.theme.panel, width: 1 } } });
  const [ax, ay] = onAxis([x], state.view.logx).concat(onAxis([value], state.view.logy));
  const right = (onAxis([x], state.view.logx)[0] - onAxis(state.range, state.view.logx)[0])
    > (onAxis(state.range, state.view.logx)[1] - onAxis(state.range, state.view.logx)[0]) / 2;
  layout.annotations.push({ x: ax, y: ay, xanchor: right ? "right" : "left", yanchor: "bottom", showarrow: false, yshift: 6, bgcolor: state.theme.panel,
    text: escape(`passed ${(mark.yardstick?.of || "the yardstick").replace(/^gpt2$/, "GPT-2")} at step ${mark.step.toLocaleString("en")}`), font: { color: colour, size: 12 } });
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

