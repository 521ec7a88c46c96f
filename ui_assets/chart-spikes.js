// Steps whose loss stands out: fetched as a run grows, marked in the chart, and gone through one by one.

const version = new URL(import.meta.url).search;
const { ACTIVE } = await import(`./chart-look.js${version}`);
const { make } = await import(`./chart-tools.js${version}`);

const EVERY = 16; // steps after which a step is judged anew: so many after it belong to its neighbourhood
const SHARE = 1 / 500; // of a run: so much of it is no wider than a few pixels, and a long one takes a second to judge
const NEAR = 6; // pixels within which a click means the spike

// Whether a run has grown since its spikes were asked for, or has ended.
export function due({ n, state, spikesAt }) {
  if (!n || spikesAt === n) return false;
  return spikesAt === undefined || n < spikesAt || n - spikesAt >= Math.max(EVERY, SHARE * n) || !ACTIVE.includes(state);
}

// [{run, step, x}] of all shown runs, by their place on the x axis.
export function spikesIn(state) {
  return state.shown.flatMap((series) => (series.spikes || []).map(({ step }) => ({ run: series.run, step, x: series.xOfStep(step, state.view.x) })))
    .filter(({ x }) => Number.isFinite(x)).sort((a, b) => a.x - b.x);
}

// The next one after a place, or the one before it; round the ends. null where there is none.
export function nextSpike(all, at, by) {
  if (!all.length) return null;
  const from = at ?? (by > 0 ? -Infinity : Infinity);
  if (by > 0) return all.find(({ x }) => x > from) || all[0];
  return all.findLast(({ x }) => x < from) || all[all.length - 1];
}

export class Spikes {
  constructor(chart, server) {
    Object.assign(this, { chart, server });
    this.element = make("button", { type: "button", class: "wb-chart-spikes", hidden: true, onclick: () => this.go(1, true) });
  }

  async fetch() {
    if (!this.chart.options.url || !this.server.chart_spikes) return;
    const wanted = this.chart.shown.filter(due);
    if (!wanted.length) return;
    const rows = wanted.map((series) => series.n);
    const found = await this.server.chart_spikes({ runs: wanted.map((series) => series.run) });
    wanted.forEach((series, at) => {
      series.spikesAt = rows[at];
      series.spikes = Array.isArray(found?.[series.run]) ? found[series.run] : [];
    });
    this.show();
    this.chart.refresh();
  }

  show() {
    const count = spikesIn(this.chart).length;
    this.element.hidden = !count;
    const text = count === 1 ? "Go to the spike" : `Next of ${count} spikes`;
    if (this.element.textContent !== text) this.element.textContent = text;
    this.element.title = "Key n, back with N; Enter opens the step";
  }

  // To the next spike; a zoom that does not hold it moves there.
  go(by, open = false) {
    const { chart } = this;
    const panel = chart.panels.get("loss");
    const found = nextSpike(spikesIn(chart), chart.cursor.at ?? this.last, by);
    if (!found || !panel) return;
    this.last = found.x;
    const [a, b] = chart.range;
    if (found.x < a || found.x > b) chart.change({ range: chart.view.logx ? null : [Math.max(0, found.x - (b - a) / 2), Math.max(0, found.x - (b - a) / 2) + (b - a)] });
    chart.cursor.picked = found.run;
    chart.cursor.point(panel, found.x);
    chart.cursor.speak(panel);
    if (open) chart.tell("wb:step", { run: found.run, step: found.step });
  }

  // The step that a click at x means: that of a spike of the run if one is so near, else its own.
  near(run, step, x) {
    const [a, b] = [this.chart.cursor.shareOf(x), NEAR / Math.max(1, this.chart.panels.get("loss").plot.clientWidth)];
    const found = spikesIn(this.chart).filter((one) => one.run === run && Math.abs(this.chart.cursor.shareOf(one.x) - a) <= b);
    return found.length ? found.reduce((best, one) => (Math.abs(one.step - step) < Math.abs(best.step - step) ? one : best)).step : step;
  }
}
