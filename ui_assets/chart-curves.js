// What the panels show of a run, in the unit they show it in: columns, what is smoothed, validation points, differences.
// Reads series and view, changes nothing.

const version = new URL(import.meta.url).search;
const { interpolate } = await import(`./chart-series.js${version}`);
const { lowerBound, smoothed, widthOf } = await import(`./chart-smooth.js${version}`);

// Losses per token compare within one tokenizer only: runs with several are shown in bits per byte unless somebody chose.
export function unitOf(state) {
  return state.view.unit === "auto" ? (tokenizersOf(state).length > 1 ? "bits" : "nats") : state.view.unit;
}

export const UNITS = { nats: "nats per token", bits: "bits per byte" };

export function tokenizersOf(state) {
  const every = state.view.runs.map((name) => state.series.get(name)?.tokenizer).filter(Boolean);
  return [...new Set(every)];
}

// What a panel's values are in: a loss goes by the chosen unit.
export function unitWords(state, id) {
  const { unit, loss } = state.options.panels[id];
  return loss ? UNITS[unitOf(state)] : unit || "";
}

// What a column's values are multiplied by; null where a run's loss is not known in bits per byte.
function scaleOf(state, series, id, source = null) {
  const { loss, scale } = state.options.panels[id];
  return loss ? (unitOf(state) === "bits" ? series.perByte(source) : 1) : scale || 1;
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

// The curves of one panel: {series, steps, x, raw, smooth | null, settled, points: bool, scale}, for every run that has
// something to show. The values of `smooth` from `settled` on change with the points that follow.
export function curves(state, id) {
  const base = state.view.minus ? state.shown.find((series) => series.run === state.view.minus) : null;
  const found = [];
  for (const series of state.shown) {
    if (base && series === base) continue;
    for (const curve of state.options.panels[id].sources ? sourceCurves(state, series, id) : [curveOf(state, series, id)]) {
      if (curve?.x.length) found.push(base ? difference(state, id, curve, base) : curve);
    }
  }
  return found;
}

// The sources of all shown mixtures, each name once, in their order: {name, promised}.
export function sourcesOf(state) {
  const found = new Map();
  for (const series of state.series.values()) for (const source of series.sources) if (!found.has(source.name)) found.set(source.name, source);
  return [...found.values()];
}

// One curve for each source of a run's mixture, with `source`, its name, and `place`, its place among all of them.
function sourceCurves(state, series, id) {
  const names = sourcesOf(state).map(({ name }) => name);
  return names.flatMap((source, place) => {
    const curve = columnCurve(state, series, id, `loss.${source}`, source);
    return curve ? [{ ...curve, source, place }] : [];
  });
}

// What a curve is called: its run, its source, or both.
export function labelOf(state, { series, source }) {
  if (source === undefined) return series.run;
  return state.shown.length > 1 ? `${series.run}: ${source}` : source;
}

// The validation points that lie in a panel beside the losses of every step.
export function pointsIn(state, id) {
  if (state.options.panels[id].sources) return state.view.minus ? [] : state.shown.flatMap((series) => sourcePoints(state, series));
  return state.options.panels[id].points ? curves(state, state.options.panels[id].points) : [];
}

function sourcePoints(state, series) {
  return sourcesOf(state).flatMap(({ name }, place) => {
    const at = unitOf(state) === "bits" ? 1 : 0;
    const evals = series.validation().filter((mark) => Number.isFinite(mark.sources?.[name]?.[at]));
    return evals.length ? [{ series, source: name, place, points: true, smooth: null, scale: 1, steps: evals.map((mark) => mark.step),
      x: Float64Array.from(evals, (mark) => series.xOfStep(mark.step, state.view.x)), raw: Float64Array.from(evals, (mark) => mark.sources[name][at]) }] : [];
  });
}

// What is known of the machine while the run was at work.
function hostCurve(state, series, { host, scale }) {
  const known = series.host;
  if (!known?.[host]?.some((value) => value !== null)) return null;
  return { series, scale, smooth: null, steps: known.step, x: Float64Array.from(known.step, (step) => series.xOfStep(step, state.view.x)),
    raw: Float64Array.from(known[host], (value) => (value === null ? NaN : value * scale)) };
}

function curveOf(state, series, id) {
  if (state.options.panels[id].host) return hostCurve(state, series, state.options.panels[id]);
  return state.options.panels[id].column ? columnCurve(state, series, id) : validationCurve(state, series);
}

function columnCurve(state, series, id, column = state.options.panels[id].column, source = null) {
  const { smooth } = state.options.panels[id];
  const scale = scaleOf(state, series, id, source);
  if (!series.columns[column] || scale === null) return null;
  const width = smooth ? smoothingWidth(state) : 0;
  const made = width > 1 ? series.smooth(column, width) : null;
  return { series, scale, steps: series.x("step"), x: series.x(state.view.x), raw: series.scaled(column, scale),
    smooth: made && times(made.y, scale), settled: made && made.settled };
}

function times(values, scale) {
  return scale === 1 ? values : values.map((value) => value * scale);
}

function validationCurve(state, series) {
  const evals = series.validation().filter((mark) => unitOf(state) === "nats" || Number.isFinite(mark.bits));
  return {
    series, points: true, smooth: null, scale: 1, steps: evals.map((mark) => mark.step),
    x: Float64Array.from(evals, (mark) => series.xOfStep(mark.step, state.view.x)),
    raw: Float64Array.from(evals, (mark) => (unitOf(state) === "bits" ? mark.bits : mark.value)),
  };
}

// A - B at the x of A's points; the difference is smoothed, not the curves it is made of.
function difference(state, id, curve, base) {
  const { series } = curve;
  const width = smoothingWidth(state);
  const part = curve.source === undefined ? id : `${id}.${curve.source}`;
  const key = `minus ${base.run} ${base.version} ${part} ${state.view.x} ${width} ${unitOf(state)}`;
  for (const other of series.made.keys()) if (other.startsWith("minus ") && other.includes(` ${part} `) && other !== key) series.made.delete(other);
  return series.remember(key, () => {
    const from = curve.source === undefined ? curveOf(state, base, id) : sourceCurves(state, base, id).find(({ source }) => source === curve.source);
    const there = from ? interpolate(from.x, from.raw, curve.x) : new Float64Array(curve.x.length).fill(NaN);
    const raw = curve.raw.constructor === Float32Array ? Float64Array.from(curve.raw) : curve.raw.slice();
    for (let i = 0; i < raw.length; i++) raw[i] -= there[i];
    const steps = series.step.subarray(0, series.n);
    return { ...curve, raw, smooth: curve.smooth ? smoothed(raw, steps, width) : null };
  });
}

// GPT-2's loss on a run's held-out text, in the shown unit: {of, value, words, key} or null. Its losses per token are its
// own tokenizer's; with another one the same loss of the same text is spread over the run's tokens, and that is said.
export function referenceOf(state, series) {
  const mark = series.validation().filter((one) => one.yardstick).pop();
  const known = mark ? { ...mark.yardstick, same: true, text: mark.text } : series.reference?.found;
  if (!known) return null;
  const perByte = series.perByte();
  const bits = known.bits ?? (perByte ? known.loss * perByte : null);
  const inBits = unitOf(state) === "bits";
  const value = inBits ? bits : known.same ? known.loss : perByte ? bits / perByte : null;
  if (!Number.isFinite(value)) return null;
  const named = known.of === "gpt2" ? { ...known, of: "GPT-2 124M", window: 1024 } : known; // a run's events name it so
  const windows = named.window ? `, windows of ${named.window.toLocaleString("en")} tokens` : "";
  const unit = inBits ? "" : known.same ? "" : " per token of this run";
  return { of: named.of, value, unit, windows, key: `${named.of} ${value.toPrecision(6)} ${known.text}` };
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
  for (const { step, loss, expected } of series.spikes || []) {
    const height = Number.isFinite(loss) && Number.isFinite(expected) ? ` of ${(loss - expected).toPrecision(3)} nats` : "";
    found.push({ kind: "spike", step, x: series.xOfStep(step, state.view.x), text: `a spike${height}` });
  }
  return found;
}

// What a person has to know before comparing the shown runs, in sentences.
export function cautions(state) {
  const found = [];
  const tokenizers = tokenizersOf(state);
  const bits = unitOf(state) === "bits";
  if (tokenizers.length > 1) {
    const names = tokenizers.map((spec) => spec.split("/").at(-1)).join(", ");
    if (bits) found.push(`${state.view.unit === "auto" ? "In bits per byte because these" : "These"} runs have different tokenizers (${names}).`);
    else found.push(`These runs have different tokenizers (${names}): losses per token do not compare, bits per byte do.`);
  }
  const last = state.shown.map((series) => [series.run, series.validation().at(-1)]).filter(([, mark]) => mark?.text);
  const texts = new Set(last.map(([, mark]) => (tokenizers.length > 1 ? `${mark.documents}` : mark.text)));
  const counts = new Set(last.map(([, mark]) => mark.documents?.toLocaleString("en") ?? "?"));
  if (texts.size > 1) found.push(`Their held-out texts differ${counts.size > 1 ? ` (${[...counts].join(", ")} documents)` : ""}: small differences between validation points say little.`);
  for (const series of state.shown.filter((one) => one.ghost)) {
    found.push(`${series.run} is an imported log, ${series.ghost}: ${series.ghost.startsWith("protocol ") && !series.ghost.endsWith("unknown") ? "its losses compare with those of the same protocol and tokenizer only" : "its level says nothing about the other runs"}.`);
    if (state.view.x !== "step" && series.tokens[0] < 0) found.push(`Its log has no tokens: it is drawn over steps only.`);
  }
  if (bits) {
    const without = state.shown.filter((series) => series.perByte() === null).map((series) => series.run);
    if (without.length) found.push(`${without.join(", ")}: no bits per byte before the first validation.`);
  }
  return found;
}

export function interpolateAt(xs, ys, x) {
  if (!xs.length) return NaN;
  if (x <= xs[0]) return ys[0];
  if (x >= xs[xs.length - 1]) return ys[ys.length - 1];
  const right = lowerBound(xs, x);
  return ys[right - 1] + ((x - xs[right - 1]) / (xs[right] - xs[right - 1])) * (ys[right] - ys[right - 1]);
}
