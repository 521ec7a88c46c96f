// GPT-2 beside a run: what is known of it on the run's held-out text, and a button that measures it where nothing is.

const version = new URL(import.meta.url).search;
const { make } = await import(`./chart-tools.js${version}`);

const ASK_MS = 2500; // while it is being measured
const KEPT = "workbench-gpt2-closed"; // problems that this reader has closed
const START_MS = 15000; // within which a measurement that was asked for is seen to have begun

function closed() {
  try { return JSON.parse(window.localStorage.getItem(KEPT) || "[]"); } catch { return []; }
}

function keep(problems) {
  try { window.localStorage.setItem(KEPT, JSON.stringify(problems.slice(-100))); } catch { /* a private window: it comes back with the page */ }
}

export class Yardstick {
  constructor(chart, server) {
    Object.assign(this, { chart, server, shown: "", pressed: 0 });
    this.element = make("span", { class: "wb-chart-yardstick", hidden: true });
  }

  stop() { clearTimeout(this.timer); }

  // Asks for the runs about which it has not asked since their last validation.
  async fetch(again = false) {
    if (!this.chart.options.yardstick) return;
    const every = this.chart.shown.filter((series) => !series.ghost && series.validation().length);
    const wanted = every.filter((series) => again || series.askedAt !== series.validation().at(-1).step);
    if (!wanted.length) return;
    const found = await this.server.chart_yardstick({ runs: wanted.map((series) => series.run) });
    for (const series of wanted) {
      series.askedAt = series.validation().at(-1).step;
      series.reference = found[series.run] || null;
      series.version++;
    }
    this.chart.refresh();
    this.soon();
  }

  soon() {
    clearTimeout(this.timer);
    const waits = Date.now() - this.pressed < START_MS;
    if (!waits && !this.chart.shown.some((series) => series.reference?.running)) return;
    this.timer = setTimeout(() => {
      if (this.chart.root.isConnected) this.fetch(true).catch(() => this.soon()); // the feed says that nobody answers
    }, ASK_MS);
  }

  // What stands in the head of the loss panel. It is left alone while it says the same: somebody may be about to press it.
  show() {
    const series = this.chart.shown.find((one) => one.reference && !one.reference.found && !one.validation().some((mark) => mark.yardstick));
    const said = series ? JSON.stringify([series.run, series.reference, this.chart.shown.length]) : "";
    if (said === this.shown) return;
    this.shown = said;
    this.element.hidden = !series;
    this.element.replaceChildren(...(series ? this.parts(series) : []));
  }

  parts(series) {
    const { running, words, problem, cost, can } = series.reference;
    if (running) return [make("span", { role: "status" }, `Measuring GPT-2: ${words}`)];
    const wrong = problem && !closed().includes(`${series.run} ${problem}`) ? this.wrong(series, problem) : [];
    if (!can) return wrong;
    const text = this.chart.shown.length > 1 ? `the text of ${series.run}` : "this text";
    const details = make("details", { class: "wb-chart-menu" }, make("summary", {}, wrong.length ? "Try again" : `Measure GPT-2 on ${text}`),
      make("div", {}, make("p", {}, cost), make("button", { type: "button", onclick: () => this.measure(series) }, "Measure")));
    details.addEventListener("keydown", (event) => { if (event.key === "Escape") { details.open = false; details.firstChild.focus(); } event.stopPropagation(); });
    return [...wrong, details];
  }

  // One line; the reason on request, and a button that closes it for this reader.
  wrong(series, problem) {
    const said = make("details", { class: "wb-chart-menu" }, make("summary", { class: "wb-bad" }, "GPT-2 was not measured"),
      make("div", {}, make("p", {}, problem)));
    said.addEventListener("keydown", (event) => { if (event.key === "Escape") { said.open = false; said.firstChild.focus(); } event.stopPropagation(); });
    const shut = () => { keep([...closed(), `${series.run} ${problem}`]); this.shown = ""; this.show(); };
    return [said, make("button", { type: "button", "aria-label": "Close: GPT-2 was not measured", title: "Close", onclick: shut }, "✕")];
  }

  measure(series) {
    keep(closed().filter((one) => !one.startsWith(`${series.run} `))); // what it comes to is news
    this.pressed = Date.now();
    this.chart.trigger("measure", { run: series.run });
    this.element.replaceChildren(make("span", { role: "status" }, "Starting …"));
    this.shown = "starting";
    this.soon();
  }
}
