// The band behind a run's losses: where runs of the same settings and other seeds lie. Fetched once for a run.

const OPACITY = 0.16;

export class Bands {
  constructor(chart, server) { Object.assign(this, { chart, server }); }

  async fetch() {
    if (!this.chart.options.url || !this.server.chart_bands) return;
    const wanted = this.chart.shown.filter((series) => series.n && series.band === undefined);
    if (!wanted.length) return;
    const found = await this.server.chart_bands({ runs: wanted.map((series) => series.run) });
    for (const series of wanted) series.band = found?.[series.run] || null;
    this.chart.refresh();
  }
}

// The bands to draw, one for runs that share it: [{series, preset, words, step, low, high}].
export function bandsIn(state) {
  if (state.view.band === false || state.view.minus) return [];
  const found = new Map();
  for (const series of state.shown) if (series.band && !found.has(series.band.preset)) found.set(series.band.preset, { series, ...series.band });
  return [...found.values()];
}

// Where a step lies on an axis, also one that the run has not come to yet; NaN where that is not known.
function place(series, step, kind) {
  if (kind === "step") return step;
  const last = series.step[series.n - 1];
  if (step <= last) return series.xOfStep(Math.round(step), kind);
  return kind === "tokens" ? (series.x("tokens")[series.n - 1] / last) * step : NaN;
}

// Plotly's areas; `scale` gives what a run's losses are multiplied by, null where that is not known.
export function areas(state, scale) {
  return bandsIn(state).flatMap(({ series, step, low, high }) => {
    const times = scale(series);
    if (times === null) return [];
    const at = step.map((one) => place(series, one, state.view.x));
    const kept = at.map((x, i) => i).filter((i) => Number.isFinite(at[i]) && (!state.view.logx || at[i] > 0));
    if (kept.length < 2) return [];
    const back = [...kept].reverse();
    return [{ type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", fillcolor: state.theme.muted, opacity: OPACITY, line: { width: 0 },
      x: [...kept, ...back].map((i) => at[i]), y: [...kept.map((i) => high[i] * times), ...back.map((i) => low[i] * times)] }];
  });
}
