// The cursor over the panels: where it is, what it reads there, clicks, and the keys that move it and zoom.

const version = new URL(import.meta.url).search;
const { onAxis } = await import(`./chart-axes.js${version}`);
const { curves, MARGIN } = await import(`./chart-draw.js${version}`);
const { reading, tip } = await import(`./chart-tools.js${version}`);

// `held`: a drag is under way.
export class Cursor {
  constructor(chart) {
    Object.assign(this, { chart, at: null, held: false, touch: window.matchMedia("(pointer: coarse)").matches });
  }

  // Follows pointer and keys over a panel.
  watch(panel) {
    panel.plot.addEventListener("pointermove", (event) => this.point(panel, this.xAt(panel, event.clientX)));
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

  point(panel, x = null) {
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
    panel.box.replaceChildren(...tip(this.chart, reading(this.chart, curves(this.chart, panel.id), x, near)));
    panel.box.classList.toggle("wb-chart-left", share > 0.5);
    panel.box.style.left = panel.line.style.left;
    this.chart.tell("wb-chart-hover", this.detail(x));
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
      if (this.touch) this.point(panel, x);
      this.click(x);
    }, { capture: true, signal: ended.signal });
  }

  click(x) {
    const detail = this.detail(x);
    this.chart.tell("wb-chart-click", detail);
    this.chart.trigger("click", detail);
  }

  key(panel, event) {
    if (event.target !== panel.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const share = this.at === null ? 0.5 : this.shareOf(this.at);
    const move = (by) => this.point(panel, this.xAtShare(Math.min(1, Math.max(0, share + by))));
    const size = event.shiftKey ? 0.1 : 0.01;
    const actions = {
      ArrowLeft: () => move(-size), ArrowRight: () => move(size), Home: () => move(-1), End: () => move(1),
      "+": () => this.chart.zoom(0.5, this.at), "=": () => this.chart.zoom(0.5, this.at),
      "-": () => this.chart.zoom(2, this.at),
      0: () => this.chart.reset(), Escape: () => this.point(null), Enter: () => { if (this.at !== null) this.click(this.at); },
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}
