// What the chart fetches: points by a cursor, first those of new runs, then what is new of all, then further columns.

const version = new URL(import.meta.url).search;
const { Series } = await import(`./chart-series.js${version}`);
const { ACTIVE } = await import(`./chart-look.js${version}`);

const POLL_MS = 1000; // while a run is at work
const REST_MS = 300000; // while none is: the page is told when something has changed
const LONGEST_MS = 30000; // between tries when the server does not answer
const HOST_MS = 10000; // between two looks at the machine's samples, which come as seldom
const PATIENCE_MS = 250; // that the first of several new runs waits for the others

// Fills chart.series. `fetching`: a request is under way.
export class Feed {
  constructor(chart, server) {
    Object.assign(this, { chart, server, failures: 0, fetching: false, calm: POLL_MS });
  }

  stop() { clearTimeout(this.timer); }

  // Something has changed on the server; a run at work is asked about anyway. An answer under way may be of before.
  changed() { if (this.calm === REST_MS || this.fetching) this.tick(); }

  // While an answer is under way its end says when to ask next: at once, if that was wanted meanwhile.
  soon(ms) {
    if (this.fetching) { this.again ||= ms === 0; return; }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), ms);
  }

  async tick() {
    clearTimeout(this.timer);
    if (this.fetching) { this.again = true; return; }
    if (!this.chart.root.isConnected) { this.chart.close(); return; }
    if (document.hidden) return; // asked when it is seen again
    if (!this.chart.root.offsetParent) { this.soon(POLL_MS); return; } // not drawn now: it may be again without another size
    this.fetching = true;
    this.again = false;
    try {
      await this.fetchAll();
      this.failures = 0;
      this.chart.say(this.chart.view.runs.length || this.chart.expecting ? "" : this.chart.options.empty);
    } catch (error) {
      this.failures++;
      this.chart.say(`No answer from the server (${error.message || error}); trying again.`);
    }
    this.fetching = false;
    const active = [...this.chart.series.values()].some((series) => ACTIVE.includes(series.state));
    this.calm = active || this.failures ? POLL_MS : REST_MS;
    const pause = this.failures ? Math.min(LONGEST_MS, POLL_MS * 2 ** Math.min(this.failures, 6)) : this.calm;
    this.soon(this.again || this.more ? 0 : pause);
  }

  // The loss, and what the x axis is made of.
  firstColumns() { return ["loss", ...(this.chart.options.axes[this.chart.view.x].columns || [])]; }

  wantedColumns(series = null) {
    const { view, options } = this.chart;
    const every = view.panels.flatMap((id) => (options.panels[id].sources ? (series?.sources || []).map(({ name }) => `loss.${name}`) : [options.panels[id].column]));
    return [...new Set([...this.firstColumns(), ...every.filter(Boolean)])];
  }

  // New runs one by one with their loss first, so that curves are there early; then what is new of all; then other columns.
  async fetchAll() {
    this.more = false;
    const every = [...this.chart.series.values()];
    const fresh = every.filter((series) => !series.cursor);
    await this.fetchFresh(fresh);
    const known = every.filter((series) => series.cursor && !fresh.includes(series));
    for (const group of this.sameColumns(known)) {
      const columns = Object.keys(group[0].columns);
      this.accept(group, await this.server.chart_points({
        wants: group.map((series) => ({ run: series.run, cursor: series.cursor })), columns: columns.length ? columns : this.wantedColumns() }));
    }
    await Promise.all(every.map((series) => this.fetchColumns(series)));
    await this.fetchFlops(every);
    await this.fetchHost(every);
    await this.chart.yardstick?.fetch();
    await this.chart.spikes?.fetch();
    await this.chart.bands?.fetch();
  }

  // Runs asked for together mostly come together: one drawing of all instead of one for each, unless somebody is late.
  async fetchFresh(fresh) {
    let changed = false;
    let late = null;
    let ended = false;
    const show = () => { if (changed) this.chart.refresh(); changed = false; };
    try {
      await Promise.all(fresh.map(async (series) => {
        const columns = this.firstColumns();
        const replies = await globalThis.workbench?.early?.points(series.run, columns)
          || await this.server.chart_points({ wants: [{ run: series.run, cursor: null }], columns });
        changed = this.accept([series], replies, false) || changed;
        if (ended) show(); // another request failed before this one was answered
        else late ||= setInterval(show, PATIENCE_MS);
      }));
    } finally {
      ended = true;
      clearInterval(late);
      show();
    }
  }

  // Runs that hold the same columns travel in one request.
  sameColumns(every) {
    const groups = new Map();
    for (const series of every) {
      const key = Object.keys(series.columns).sort().join();
      groups.set(key, [...(groups.get(key) || []), series]);
    }
    return [...groups.values()];
  }

  // `asked`: the series the replies are for. One that has been taken off the chart meanwhile gets nothing, not even if the
  // same run was put on it again: what follows a cursor is of use only to the series that has what came before it.
  accept(asked, replies, draw = true) {
    if (!Array.isArray(replies)) throw new Error("is it running?"); // Gradio answers for a server that does not
    let changed = false;
    for (const reply of replies) {
      const series = asked.find((one) => one.run === reply.run);
      if (!series || this.chart.series.get(reply.run) !== series) continue;
      const problem = reply.problem || null;
      changed = series.problem !== problem || (!problem && series.state !== reply.state) || changed;
      series.problem = problem;
      series.colour = reply.colour ?? series.colour;
      series.tokenizer = reply.tokenizer ?? series.tokenizer;
      if (problem) { series.state = null; continue; }
      const before = series.n ? series.x(this.chart.view.x)[series.n - 1] : null;
      changed = series.take(reply) || changed;
      this.more ||= reply.more;
      this.followNewest(series, before);
    }
    if (changed && draw) this.chart.refresh();
    return changed;
  }

  followNewest(series, before) {
    if (!this.chart.view.follow || !this.chart.view.range || before === null || !series.n) return;
    const newest = series.x(this.chart.view.x)[series.n - 1];
    const [a, b] = this.chart.view.range;
    if (newest > b && before <= b * 1.0001) this.chart.view.range = [a + newest - b, newest];
  }

  async fetchColumns(series) {
    const missing = this.wantedColumns(series).filter((name) => !series.columns[name]);
    if (!series.cursor?.metrics || !series.n || !missing.length) return;
    const until = series.cursor.metrics.at;
    const beside = new Series(series.run);
    let cursor = null;
    let more = true;
    while (more) {
      const [reply] = await this.server.chart_points({ wants: [{ run: series.run, cursor, until }], columns: missing });
      if (reply.problem || reply.cursor.metrics?.head !== series.cursor.metrics.head) return;
      beside.take(reply);
      cursor = reply.cursor;
      more = reply.more;
    }
    if (this.chart.series.get(series.run) !== series || beside.n !== series.n) return;
    series.adopt(beside);
    this.chart.arrived();
  }

  // The machine's samples of runs that have gone on, now and then.
  async fetchHost(every) {
    const { view, options } = this.chart;
    if (!view.panels.some((id) => options.panels[id]?.host)) return;
    const due = every.filter((series) => series.n && series.hostOf !== series.n && Date.now() - (series.hostAt || 0) > HOST_MS);
    if (!due.length) return;
    const found = await this.server.chart_host({ runs: due.map((series) => series.run) });
    for (const series of due) Object.assign(series, { host: found[series.run] || null, hostOf: series.n, hostAt: Date.now() });
    this.chart.refresh();
  }

  async fetchFlops(every) {
    const unknown = every.filter((series) => this.chart.view.x === "flops" && series.flops === undefined);
    if (!unknown.length) return;
    const found = await this.server.chart_flops({ runs: unknown.map((series) => series.run) });
    for (const series of unknown) { series.flops = found[series.run] ?? null; series.version++; }
    this.chart.arrived();
  }
}
