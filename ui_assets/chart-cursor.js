// The cursor over the panels: where it is, what it reads there, clicks, and the keys that move it and zoom.
// A click on a chart that keeps its view in the address, or Enter, opens a step: `wb:step` with {run, step} goes up to
// the document, and whoever shows steps listens there.

const version = new URL(import.meta.url).search;
const { onAxis } = await import(`./chart-axes.js${version}`);
const { curves, pointsIn } = await import(`./chart-curves.js${version}`);
const { MARGIN } = await import(`./chart-look.js${version}`);
const { nearest } = await import(`./chart-series.js${version}`);
const { reading, tip, xWords } = await import(`./chart-legend.js${version}`);

// `held`: a drag is under way. `picked`: the run whose step a click or Enter opens.
export class Cursor {
  constructor(chart) {
    Object.assign(this, { chart, at: null, picked: "", held: false, touch: window.matchMedia("(pointer: coarse)").matches });
  }

  // Follows pointer and keys over a panel.
  watch(panel) {
    panel.plot.addEventListener("pointermove", (event) => this.point(panel, this.xAt(panel, event.clientX), event.clientY));
    panel.plot.addEventListener("pointerleave", () => this.point(null));
    panel.plot.addEventListener("pointerdown", (event) => this.press(panel, event));
    panel.element.addEventListener("keydown", (event) => this.key(panel, event));
    panel.element.addEventListener("blur", () => this.point(null));
  }

  xAt(panel, clientX) {
    const box = panel.plot.getBoundingClientRect();
    const share = (clientX - box.left - MARGIN.l) / (box.width - MARGIN.l - MARGIN.r);
    return share >= 0 && share <= 1 ? this.xAtShare(share) : null;
  }

  xAtShare(share) {
    const [a, b] = onAxis(this.chart.range, this.chart.view.logx);
    return this.chart.view.logx ? 10 ** (a + share * (b - a)) : a + share * (b - a);
  }

  // Where x lies between the ends of the range, 0 to 1.
  shareOf(x) {
    const [a, b] = onAxis(this.chart.range, this.chart.view.logx);
    return (onAxis([x], this.chart.view.logx)[0] - a) / (b - a);
  }

  // The line and the box at x; with a height of the pointer the curve that is nearest to it is picked.
  point(panel, x = null, clientY = null) {
    const there = panel && x !== null && panel.drawn;
    this.at = there ? x : null;
    const share = there ? this.shareOf(x) : 0;
    for (const other of this.chart.panels.values()) {
      other.line.hidden = !there || !other.drawn;
      other.box.hidden = !there || other !== panel;
      if (there) other.line.style.left = `${MARGIN.l + share * (other.plot.clientWidth - MARGIN.l - MARGIN.r)}px`;
    }
    if (!there) { if (panel === null) this.chart.tell("wb-chart-hover", null); return; }
    const near = Math.abs(this.xAtShare(share + 0.008) - x);
    const found = reading(this.chart, curves(this.chart, panel.id), x, near, pointsIn(this.chart, panel.id));
    if (clientY !== null) this.picked = this.nearestRun(panel, found.rows, clientY);
    panel.box.replaceChildren(...tip(this.chart, found, this.pickOf(found.rows)));
    panel.box.classList.toggle("wb-chart-left", share > 0.5);
    panel.box.style.left = panel.line.style.left;
    this.chart.tell("wb-chart-hover", this.detail(x));
  }

  pickOf(rows) { return rows.find((row) => row.series.run === this.picked) || rows[0] || null; }

  nearestRun(panel, rows, clientY) {
    const { range, type } = panel.layout.yaxis;
    const box = panel.plot.getBoundingClientRect();
    const wanted = (box.bottom - MARGIN.b - clientY) / (box.height - MARGIN.t - MARGIN.b);
    const away = ({ value }) => Math.abs((onAxis([value], type === "log")[0] - range[0]) / (range[1] - range[0]) - wanted);
    const known = rows.filter((row) => Number.isFinite(away(row)));
    return known.reduce((best, row) => (best && away(best) <= away(row) ? best : row), null)?.series.run || "";
  }

  // What is told of a point: x, the step there, and every run's loss.
  detail(x) {
    const { rows } = reading(this.chart, curves(this.chart, "loss"), x, 0);
    const first = rows[0];
    return { x, step: first ? first.series.step[first.at] : null, runs: Object.fromEntries(rows.map((row) => [row.series.run, row.value])) };
  }

  press(panel, down) {
    if (down.button) return;
    this.held = true;
    const ended = new AbortController();
    const release = () => {
      ended.abort();
      setTimeout(() => { this.held = false; if (this.chart.stale) this.chart.refresh(); }, 50); // after Plotly's own end of the drag
    };
    window.addEventListener("pointercancel", release, { capture: true, signal: ended.signal });
    window.addEventListener("pointerup", (up) => {
      release();
      const still = Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY) < 4;
      const x = this.xAt(panel, down.clientX);
      if (!still || x === null) return;
      this.point(panel, x, up.clientY);
      this.click(panel, x);
    }, { capture: true, signal: ended.signal });
  }

  click(panel, x) {
    const detail = this.detail(x);
    this.chart.tell("wb-chart-click", detail);
    this.chart.trigger("click", detail);
    const row = this.pickOf(reading(this.chart, curves(this.chart, panel.id), x, 0).rows);
    if (row && this.chart.options.url) this.chart.tell("wb:step", { run: row.series.run, step: this.chart.spikes.near(row.series.run, row.step, x) });
  }

  // So far along the axis as a share of it, and at least to the next point of the picked curve.
  move(panel, by) {
    const shown = curves(this.chart, panel.id);
    const curve = shown.find(({ series }) => series.run === this.picked) || shown[0];
    if (!curve) return;
    const share = this.at === null ? 0.5 : this.shareOf(this.at);
    const now = this.at === null ? -1 : nearest(curve.x, this.at);
    let next = nearest(curve.x, this.xAtShare(Math.min(1, Math.max(0, share + by))));
    if (next === now) next = Math.min(curve.x.length - 1, Math.max(0, next + Math.sign(by)));
    const there = this.shareOf(curve.x[next]);
    if (there >= -1e-9 && there <= 1 + 1e-9) this.point(panel, curve.x[next]);
    this.speak(panel);
  }

  // Another curve at the same place.
  pick(panel, by) {
    const { rows } = reading(this.chart, curves(this.chart, panel.id), this.at ?? this.xAtShare(0.5), 0);
    if (!rows.length) return;
    const now = rows.indexOf(this.pickOf(rows));
    this.picked = rows[(now + by + rows.length) % rows.length].series.run;
    this.point(panel, this.at ?? this.xAtShare(0.5));
    this.speak(panel);
  }

  // To a screen reader what the box says of the picked curve; a pointer's moves are not spoken.
  speak(panel) {
    if (this.at === null) return;
    const row = this.pickOf(reading(this.chart, curves(this.chart, panel.id), this.at, 0).rows);
    if (row) this.chart.heard.textContent = `${xWords(this.chart.view.x, this.at)}, ${row.series.run} ${row.words}`;
  }

  key(panel, event) {
    if (event.target !== panel.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = (by) => this.move(panel, by);
    const size = event.shiftKey ? 0.1 : 0.01;
    const actions = {
      ArrowLeft: () => move(-size), ArrowRight: () => move(size), Home: () => move(-1), End: () => move(1),
      ArrowUp: () => this.pick(panel, -1), ArrowDown: () => this.pick(panel, 1),
      "+": () => this.chart.zoom(0.5, this.at), "=": () => this.chart.zoom(0.5, this.at),
      "-": () => this.chart.zoom(2, this.at),
      n: () => this.chart.spikes.go(1), N: () => this.chart.spikes.go(-1),
      0: () => this.chart.reset(), Escape: () => this.point(null), Enter: () => { if (this.at !== null) this.click(panel, this.at); },
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}
