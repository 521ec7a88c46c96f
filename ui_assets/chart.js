// The live chart: mounted once per component, then it fetches what is new by a cursor and draws it on the same nodes.

const version = new URL(import.meta.url).search;
const { Series } = await import(`./chart-series.js${version}`);
const { Feed } = await import(`./chart-feed.js${version}`);
const { Cursor } = await import(`./chart-cursor.js${version}`);
const { onAxis } = await import(`./chart-axes.js${version}`);
const { cautions, curves, interpolateAt, smoothingWidth, unitWords, wholeRange } = await import(`./chart-curves.js${version}`);
const { alike, copied, figure, markKey } = await import(`./chart-draw.js${version}`);
const { ACTIVE, number, theme } = await import(`./chart-look.js${version}`);
const { make, toolbar } = await import(`./chart-tools.js${version}`);
const { legend, rates, sourceLegend, spoken, validationKey } = await import(`./chart-legend.js${version}`);
const { Yardstick } = await import(`./chart-yardstick.js${version}`);
const { Spikes } = await import(`./chart-spikes.js${version}`);
const { Bands } = await import(`./chart-bands.js${version}`);
const { save } = await import(`./chart-export.js${version}`);
const { firstDrawing, loadPlotly, turn } = await import(`./chart-plotly.js${version}`);

const DEFAULTS = { runs: [], x: "step", logx: false, logy: false, smooth: "auto", unit: "auto", minus: "", panels: [], range: null, follow: false, band: true, shade: null };
const IN_ADDRESS = ["x", "logx", "logy", "smooth", "unit", "minus", "panels", "range", "follow", "band"];
const HEIGHT = 180;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

// A link's runs can be fetched before the server was asked what to show; its answer then changes what it names.
function runsInAddress(most) {
  const asked = window.workbench?.params?.() || {};
  if (asked.tab && asked.tab !== "monitor") return [];
  return [...new Set((asked.runs || asked.run || "").split(",").map((name) => name.trim()))].filter((name) => NAME.test(name)).slice(0, most);
}

export function mount({ element, props, server, watch, trigger, plotly: address, options }) {
  return new Chart(element.querySelector(".wb-chart"), props, server, watch, trigger, address, options);
}

class Chart {
  constructor(root, props, server, watch, trigger, address, options) {
    Object.assign(this, { root, props, server, trigger, options });
    this.defaults = { ...DEFAULTS, panels: Object.keys(options.panels).filter((id) => !options.panels[id].more) };
    this.view = { ...this.defaults, ...options.view, ...props.value };
    if (options.url && !this.view.runs.length) this.view.runs = runsInAddress(options.maxRuns);
    const asked = options.url && window.workbench?.params().panels?.split(",").filter((id) => options.panels[id]);
    if (asked?.length) this.view.panels = asked; // so that room is kept for them and for no others
    this.series = new Map();
    this.yranges = {};
    this.panels = new Map();
    this.feed = new Feed(this, server);
    this.cursor = new Cursor(this);
    this.yardstick = new Yardstick(this, server);
    this.spikes = new Spikes(this, server);
    this.bands = new Bands(this, server);
    this.draws = 0;
    this.asked = 0; // how many views were asked for
    this.expecting = Boolean(options.url); // whose runs the page is about to name: room is kept for their curves
    this.step = options.url ? window.workbench?.step?.shown?.() || null : null; // {run, step} whose card is open
    this.library = () => loadPlotly(address); // once there is something to draw: it is half a second of work
    this.build();
    watch("value", () => this.take(props.value));
    root.chart = this; // for whoever looks at the page with tools
    this.observe();
    this.settle();
    this.feed.tick(); // at once: the points are on their way while plotly.js is compiled
  }

  get colours() { return new Map([...this.series].filter(([, series]) => series.colour).map(([name, series]) => [name, series.colour])); }
  get shown() { return this.view.runs.map((name) => this.series.get(name)).filter((series) => series && series.n); }
  // A range in which the axis has no values (below zero, once it is logarithmic) is cut where they begin.
  get range() {
    const whole = wholeRange(this);
    const { range, logx } = this.view;
    if (!range || (logx && !(range[1] > 0))) return whole;
    return logx && !(range[0] > 0) ? [Math.min(whole[0], range[1] / 2), range[1]] : range;
  }
  get theme() { return (this.look ||= theme(this.root)); }

  build() {
    this.tools = toolbar(this.options, (keys) => this.change(keys), { zoom: (factor) => this.zoom(factor), reset: () => this.reset(), save: (kind) => this.save(kind) });
    this.status = this.root.querySelector(".wb-chart-status");
    this.status.hidden = true;
    this.runs = make("ul", { class: "wb-chart-runs", "aria-label": "Runs" });
    this.grid = make("div", { class: "wb-chart-panels", role: "group",
      "aria-label": `Panels: left and right move the cursor, up and down choose a run, ${this.options.url ? "Enter opens the step, n goes to the next spike, " : ""}+ and − zoom, 0 shows everything` });
    this.note = make("p", { class: "wb-chart-note", role: "status", hidden: true });
    this.heard = make("p", { class: "wb-chart-heard wb-chart-unseen", role: "status" });
    this.root.setAttribute("role", "region");
    this.root.setAttribute("aria-label", this.options.label);
    this.root.prepend(this.tools.element, this.runs, this.note);
    this.root.append(this.grid, this.heard);
    for (const id of Object.keys(this.options.panels)) this.buildPanel(id);
  }

  buildPanel(id) {
    const { title, height, points, sources } = this.options.panels[id];
    const plot = make("div", { class: "wb-chart-plot" });
    const line = make("div", { class: "wb-chart-line", hidden: true });
    const box = make("div", { class: "wb-chart-tip", hidden: true });
    const none = make("p", { class: "wb-chart-none" }, "Loading …");
    const [minus, unit, key] = [make("span"), make("span"), make("span", { class: "wb-chart-key" })];
    const named = sources ? [make("ul", { class: "wb-chart-runs wb-chart-sources", "aria-label": "Sources" })] : [];
    const figureElement = make("figure", { class: `wb-chart-panel wb-chart-panel-${id}`, tabindex: 0, role: "group" },
      make("figcaption", {}, title, minus, unit, key, ...(points ? [this.spikes.element, this.yardstick.element] : [])), ...named, make("div", { class: "wb-chart-stage" }, plot, none, line, box));
    plot.style.height = `${height || HEIGHT}px`;
    const panel = { id, plot, none, minus, absent: `No ${title.toLowerCase()} yet.`, unit, key, line, box, named: named[0], element: figureElement, drawn: null };
    this.cursor.watch(panel);
    this.panels.set(id, panel);
    this.grid.append(figureElement);
  }

  observe() {
    this.dark = document.body.classList.contains("dark");
    this.bodyWatch = new MutationObserver(() => {
      const dark = document.body.classList.contains("dark");
      if (dark !== this.dark) { this.dark = dark; this.look = null; this.refresh(); }
    });
    this.bodyWatch.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.sizeWatch = new ResizeObserver(() => {
      const before = this.width;
      this.width = this.root.clientWidth; // 0 while its tab is not the selected one
      if (this.width && this.width !== before) { this.refresh(); this.feed.soon(0); }
    });
    this.sizeWatch.observe(this.root);
    this.wake = () => { if (!document.hidden) this.feed.soon(0); };
    document.addEventListener("visibilitychange", this.wake);
    this.news = () => this.feed.changed();
    document.addEventListener("wb-changed", this.news);
    this.opened = (event) => { this.cursor.point(null); this.step = event.detail; this.refresh(); };
    if (this.options.url) document.addEventListener("wb-step-shown", this.opened);
  }

  close() {
    this.feed.stop();
    this.yardstick.stop();
    this.bodyWatch.disconnect();
    this.sizeWatch.disconnect();
    document.removeEventListener("visibilitychange", this.wake);
    document.removeEventListener("wb-changed", this.news);
    document.removeEventListener("wb-step-shown", this.opened);
    for (const { plot } of this.panels.values()) if (plot.data) window.Plotly?.purge(plot);
  }

  // The view

  // Python changed some keys. A range belongs to its axis; other axes without a range keep what is in sight.
  take(value) {
    if (!value || typeof value !== "object") return;
    const keys = Object.fromEntries(Object.entries(value).filter(([key, now]) => key in this.defaults && JSON.stringify(now) !== JSON.stringify(this.view[key])));
    if (Object.keys(keys).length) this.apply(keys);
  }

  // The person changed some keys.
  change(keys) {
    this.apply(keys);
    if ("range" in keys) {
      const detail = { range: this.view.range, x: this.view.x };
      this.tell("wb-chart-range", detail);
      this.trigger("select", detail);
    }
  }

  apply(keys) {
    const { x, range } = this.pending || this.view;
    this.pending = null;
    if ("x" in keys && keys.x !== x && range && !("range" in keys)) {
      keys.range = this.translate(range, x, keys.x);
      if (!keys.range) this.pending = { x, range }; // the axis has no values yet: see `arrived`
    }
    this.asked++;
    Object.assign(this.view, keys);
    if (!this.view.runs.includes(this.view.minus)) this.view.minus = "";
    this.yranges = {};
    this.settle();
    clearTimeout(this.writing);
    const place = window.workbench?.place?.();
    this.writing = setTimeout(() => this.write(place), 200);
  }

  // The same stretch of the longest run on another axis.
  translate(range, from, to) {
    const series = this.shown.reduce((best, one) => (!best || one.n > best.n ? one : best), null);
    if (!series) return null;
    const [a, b] = range.map((value) => interpolateAt(series.x(from), series.x(to), value));
    return a < b ? [a, b] : null;
  }

  // Columns or FLOPs came: a range that waited for the new axis can be carried over.
  arrived() {
    const range = this.pending && this.translate(this.pending.range, this.pending.x, this.view.x);
    if (range) {
      this.pending = null;
      this.view.range = range;
      this.write();
    }
    this.refresh();
  }

  // Back to the component's value, for handlers, and into the address; not into that of a place to which someone went
  // back meanwhile. Which runs are shown is not the chart's choice: whoever chooses them keeps them in the address.
  write(place = window.workbench?.place?.()) {
    this.props.value = JSON.parse(JSON.stringify(this.view));
    if (!this.options.url || !window.workbench?.url || place !== window.workbench.place?.()) return;
    const plain = (value) => (Array.isArray(value) ? value.join(",") : typeof value === "boolean" ? (value ? "1" : "0") : String(value));
    const keys = {};
    for (const key of IN_ADDRESS) {
      const value = this.view[key];
      const usual = JSON.stringify(value) === JSON.stringify(this.defaults[key]);
      keys[key] = usual ? null : key === "range" ? value.map((end) => +end.toPrecision(9)).join("..") : plain(value);
    }
    window.workbench.url(keys);
  }

  // Brings everything in line with the view, and fetches what it needs.
  settle() {
    for (const name of this.view.runs) if (!this.series.has(name)) this.series.set(name, new Series(name));
    for (const name of [...this.series.keys()]) if (!this.view.runs.includes(name)) this.series.delete(name);
    this.expecting &&= !this.view.runs.length;
    for (const panel of this.panels.values()) {
      panel.element.hidden = !this.view.panels.includes(panel.id) || !(this.view.runs.length || this.expecting) || !this.hosted(panel.id);
    }
    this.refresh();
    this.feed.soon(0);
  }

  zoom(factor, centre = null) {
    const log = this.view.logx;
    const [a, b] = onAxis(this.range, log);
    const middle = centre === null ? (a + b) / 2 : onAxis([centre], log)[0];
    let next = [middle + (a - middle) * factor, middle + (b - middle) * factor];
    const whole = onAxis(wholeRange(this), log);
    next = [Math.max(next[0], whole[0]), Math.min(next[1], whole[1])];
    if (!(next[0] < next[1])) return;
    const all = next[0] <= whole[0] && next[1] >= whole[1];
    this.change({ range: all ? null : log ? next.map((value) => 10 ** value) : next });
  }

  reset() { this.change({ range: null }); }

  // Drawing

  // Whether a run's first points are still on their way; columns come after the loss, and the machine's last.
  loading(id) {
    const { column, host, sources } = this.options.panels[id];
    const missing = (series) => (sources ? series.sources.some(({ name }) => !series.columns[`loss.${name}`]) : column && !series.columns[column]);
    return this.expecting || [...this.series.values()].some((series) => !series.problem
      && (!series.cursor || (series.n > 0 && missing(series)) || (host && series.n > 0 && series.hostOf === undefined)));
  }

  // Whether a panel of the machine is shown: known before its values are, so that nothing below it moves when they come.
  hosted(id) {
    const { host, sources } = this.options.panels[id];
    if (sources) return [...this.series.values()].some((series) => series.sources.length > 0);
    const expected = (series) => (series.cursor && !ACTIVE.includes(series.state) ? series.hosts : this.options.hosts)?.includes(host);
    return !host || (this.expecting && this.options.hosts.includes(host)) || [...this.series.values()].some(expected) || curves(this, id).length > 0;
  }

  // Not while a drag is under way: drawing anew would end it.
  refresh() {
    if (this.drawing || this.cursor.held) { this.stale = true; return; }
    this.drawing = true;
    requestAnimationFrame(async () => {
      this.stale = false;
      try { await this.draw(); } finally { this.drawing = false; }
      if (this.stale) this.refresh(); // once more, or when the drag has ended
    });
  }

  async draw() {
    const width = smoothingWidth(this);
    this.tools.show(this, width);
    this.runs.replaceChildren(...legend(this));
    this.caution(cautions(this));
    this.yardstick.show();
    this.spikes.show();
    const Plotly = this.view.runs.length ? await this.library() : window.Plotly;
    if (!this.root.offsetParent) return;
    const { asked } = this;
    let first = true;
    for (const panel of this.panels.values()) {
      if (this.asked !== asked) return; // another view is wanted: from the first panel on, and not after the last
      const { host, sources } = this.options.panels[panel.id];
      if (host || sources) panel.element.hidden = !this.view.panels.includes(panel.id) || !this.hosted(panel.id);
      if (panel.element.hidden || !this.view.runs.length) continue;
      if (this.cursor.held) { this.stale = true; return; }
      const { data, layout, cut } = figure(this, panel.id, panel.plot.clientWidth, panel.plot.clientHeight);
      panel.none.hidden = data.length > 0;
      panel.none.textContent = this.loading(panel.id) ? "Loading …" : panel.absent;
      this.caption(panel, width, cut);
      panel.named?.replaceChildren(...sourceLegend(this));
      if (!data.length && !panel.drawn) continue;
      if (panel.drawn && alike(panel.drawn, { data, layout })) continue;
      const seen = copied({ data, layout }); // plotly writes into what it is given
      panel.layout = layout;
      if (panel.drawn) await Plotly.react(panel.plot, data, layout);
      else await this.first(Plotly, panel, data, layout);
      panel.drawn = seen;
      panel.element.setAttribute("aria-label", spoken(this, panel.id, curves(this, panel.id)));
      await turn(first); // the page stays responsive between panels
      first = false;
    }
    this.draws++;
    this.root.dataset.draws = this.draws;
  }

  // What a panel shows: its unit, and of what its lines and points are.
  caption(panel, width, cut) {
    const { points, smooth, sources } = this.options.panels[panel.id];
    panel.minus.textContent = this.view.minus ? `minus ${this.view.minus}` : "";
    panel.unit.textContent = unitWords(this, panel.id);
    if (!points && !sources) { panel.key.title = panel.key.textContent = rates(this, panel.id); return; }
    const parts = [width > 1 && smooth ? `bold: over ${number(width)} steps` : "", validationKey(this, panel.id), ...(points ? markKey(this) : []),
      cut ? "the first steps lie above" : ""];
    panel.key.textContent = parts.filter(Boolean).join(" · ");
  }

  caution(sentences) {
    const text = sentences.join(" ");
    if (this.note.textContent !== text) this.note.textContent = text;
    this.note.hidden = !text;
  }

  async first(Plotly, panel, data, layout) {
    await firstDrawing(Plotly, panel.plot, data, layout);
    panel.plot.on("plotly_doubleclick", () => this.reset());
    panel.plot.on("plotly_relayout", (change) => this.dragged(panel, change));
  }

  // The person dragged over a panel: along x it zooms all panels, along y this one.
  dragged(panel, change) {
    panel.drawn.layout = null; // it looks otherwise now
    const ends = (axis) => [change[`${axis}.range[0]`], change[`${axis}.range[1]`]];
    const y = ends("yaxis");
    const x = ends("xaxis").map((value) => (this.view.logx ? 10 ** value : value));
    const kept = this.yranges;
    if (Number.isFinite(x[0]) && x[0] < x[1]) this.change({ range: x });
    this.yranges = kept;
    if (Number.isFinite(y[0])) this.yranges = { ...kept, [panel.id]: y };
    this.refresh();
  }

  // Leaving

  async save(kind) {
    try {
      await save(this, kind);
    } catch (error) {
      this.say(`Not exported: ${error.message}`);
    }
  }

  tell(name, detail) {
    this.root.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.hidden = !text;
  }
}
