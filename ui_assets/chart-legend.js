// The list of runs, what the cursor reads of their curves, and the same in words for a screen reader.

const version = new URL(import.meta.url).search;
const { duration } = await import(`./chart-axes.js${version}`);
const { labelOf, marksOf, pointsIn, sourcesOf, unitOf, unitWords } = await import(`./chart-curves.js${version}`);
const { colourOf, colourOfCurve, dashOf, dashOfCurve, number, sourceColour } = await import(`./chart-look.js${version}`);
const { nearest } = await import(`./chart-series.js${version}`);
const { make } = await import(`./chart-tools.js${version}`);

// The runs with their colours, states and newest values.
export function legend(state) {
  return state.view.runs.map((name) => {
    const series = state.series.get(name);
    const last = series?.n ? `step ${series.step[series.n - 1].toLocaleString("en")}, loss ${lossWords(state, series)}` : "no step yet";
    const without = state.view.x === "flops" && series?.flops === null ? "FLOPs n/a: its configuration or tokenizer cannot be read" : null;
    const status = series?.ghost ? `imported log, ${series.ghost}` : series?.state;
    const words = series?.problem || without || (series?.cursor ? `${status} · ${last}` : "loading");
    return make("li", { class: series?.problem ? "wb-chart-problem" : null }, swatchOf(state, name), make("strong", {}, name), ` ${words}`);
  });
}

// The newest loss, and the newest validation.
function lossWords(state, series) {
  const scale = unitOf(state) === "bits" ? series.perByte() : 1;
  const mark = series.validation().at(-1);
  const value = mark && (unitOf(state) === "bits" ? mark.bits : mark.value);
  return `${scale === null ? "n/a" : number(series.values("loss")[series.n - 1] * scale)}${Number.isFinite(value) ? `, validation ${number(value)}` : ""}`;
}

function swatchOf(state, run) {
  return swatch(state.colours.get(run) ? colourOf(state, run) : null, dashOf(state, run));
}

function swatch(colour, dash = "solid") {
  const made = make("span", { class: `wb-chart-swatch${dash === "solid" ? "" : " wb-chart-dashed"}`, "aria-hidden": "true" });
  if (colour) made.style.setProperty("--wb-chart-colour", colour);
  return made;
}

const percent = (share) => `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 3 })} %`;

// The sources of mixtures in their colours, with the share of the tokens that each was promised and, of every run, has had.
export function sourceLegend(state) {
  return sourcesOf(state).map(({ name }, place) => {
    const words = state.shown.filter((series) => series.sources.some((source) => source.name === name)).map((series) => {
      const { promised } = series.sources.find((source) => source.name === name), had = series.share(name);
      const told = [promised === null ? "" : `${percent(promised)} promised`, had === null ? "" : `${percent(had)} had`].filter(Boolean);
      return `${state.shown.length > 1 ? `${series.run}: ` : ""}${told.join(", ")}`;
    }).join("; ");
    return make("li", { title: "share of the targets; steps that a resume repeated count each time" }, swatch(sourceColour(state, place)), make("strong", {}, name), ` ${words}`);
  });
}

// Of runs with Muon the learning rate that is drawn is that of AdamW's part; Muon's is a fixed number of times it.
export function rates(state, id) {
  const found = state.options.panels[id].column === "lr" ? state.shown.filter((series) => series.muon) : [];
  if (!found.length) return "";
  const last = found[0].n ? found[0].values("lr")[found[0].n - 1] : NaN;
  if (state.shown.length === 1 && Number.isFinite(last)) return `AdamW ${number(last)} · Muon ${number(last * found[0].muon)}`;
  const times = [...new Set(found.map((series) => number(series.muon)))];
  const whose = found.length === state.shown.length ? "" : `${found.map((series) => series.run).join(", ")}: `;
  return `${whose}AdamW; Muon ${times.join(" or ")} × it`;
}

// What the validation points of a panel are. Of a mixture as a whole they may lie far from the curve, whose rows have the
// shares of the mixture: what is held out has not.
export function validationKey(state, id) {
  const found = pointsIn(state, id);
  if (!found.length) return "";
  const whole = found.some(({ series, source }) => source === undefined && series.sources.length > 1);
  return whole ? "● validation, weighted by held-out tokens, not by share" : "● validation";
}

// What a screen reader hears of a panel: the newest value of every run.
export function spoken(state, id, shown) {
  const { title } = state.options.panels[id];
  const unit = unitWords(state, id);
  const values = shown.map((curve) => {
    const { raw } = curve;
    let at = raw.length - 1;
    while (at > 0 && !Number.isFinite(raw[at])) at--;
    return `${labelOf(state, curve)} ${number(raw[at])}`;
  });
  return `${title}${unit ? ` in ${unit}` : ""}: ${values.length ? values.join("; ") : "no values yet"}`;
}

export function xWords(kind, value) {
  if (kind === "time") return duration(value);
  if (kind === "step") return `step ${Math.round(value).toLocaleString("en")}`;
  return kind === "tokens" ? `${Math.round(value).toLocaleString("en")} tokens` : `${value.toExponential(3)} FLOPs`;
}

// The rows of the box at the cursor: every run's own point nearest to x, exact and not what happens to be drawn; and the
// validation points beside it.
export function reading(state, shown, x, near, beside = []) {
  const rows = [];
  for (const curve of shown) {
    const { series, x: xs, steps, raw, smooth } = curve;
    const at = nearest(xs, x);
    if (at < 0) continue;
    const place = xWords(state.view.x, xs[at]);
    rows.push({ curve, series, at, step: steps[at], place, value: raw[at], words: number(raw[at]) + (smooth ? ` (${number(smooth[at])})` : "") });
  }
  const points = beside.flatMap((curve) => {
    const { x: xs, steps, raw } = curve, at = nearest(xs, x);
    return at >= 0 && Math.abs(xs[at] - x) <= near ? [`${labelOf(state, curve)}: validation ${number(raw[at])} at step ${steps[at].toLocaleString("en")}`] : [];
  });
  const marks = state.shown.flatMap((series) => marksOf(state, series).filter((mark) => Math.abs(mark.x - x) <= near)
    .slice(0, 3).map((mark) => `${series.run}: ${mark.kind === "alert" ? "alert: " : ""}${mark.text} at step ${mark.step.toLocaleString("en")}`));
  return { rows, marks: [...points, ...marks].slice(0, 6) };
}

// `picked`: the row whose step a click opens.
export function tip(state, { rows, marks }, picked = null) {
  const same = rows.every((row) => row.place === rows[0].place);
  return [
    make("p", {}, rows.length ? `${rows[0].place}${rows.some((row) => row.words.includes("(")) ? ": value (smoothed)" : ""}` : ""),
    ...rows.map((row) => {
      const mark = swatch(colourOfCurve(state, row.curve), dashOfCurve(state, row.curve));
      return make("p", { class: rows.length > 1 && row === picked ? "wb-chart-picked" : null }, mark, `${labelOf(state, row.curve)} `, make("b", {}, row.words), same ? "" : ` at ${row.place}`);
    }),
    ...marks.map((text) => make("p", { class: "wb-chart-mark" }, text)),
    ...(picked && state.options.url ? [make("p", { class: "wb-chart-hint" }, `Click: the text of ${rows.length > 1 ? `${picked.series.run}'s ` : ""}step ${picked.step.toLocaleString("en")}`)] : []),
  ];
}
