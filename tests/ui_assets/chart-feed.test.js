// What the chart fetches, and what it does with answers that come late, in portions, or not at all.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = { hidden: false };
const { Series } = await import("../../ui_assets/chart-series.js");
const { Feed } = await import("../../ui_assets/chart-feed.js");

const base64 = (values) => Buffer.from(Float32Array.from(values).buffer).toString("base64");

// What points.py answers for the steps first..last of a run.
function answer(run, first, last, more = {}) {
  const n = last - first + 1;
  const steps = Array.from({ length: n }, (_, i) => first + i);
  return { run, state: "running", rows: n, steps: [[first, n, 1]], tokens: [[first, n, 1]], attempts: [], resets: [],
    columns: { loss: base64(steps) }, cursor: { metrics: { head: "h", at: last } }, replaced: false, more: false, ...more };
}

function chart(names, server) {
  const made = { view: { runs: names, x: "step", panels: ["loss"], range: null, follow: false }, series: new Map(), drawn: 0, said: "",
    options: { empty: "", axes: { step: {}, time: { columns: ["step_ms"] } }, panels: { loss: { column: "loss" }, validation: {}, lr: { column: "lr" } } }, root: { isConnected: true, offsetParent: {} }, refresh() { this.drawn++; }, arrived() {}, say(text) { this.said = text; } };
  for (const name of names) made.series.set(name, new Series(name));
  made.feed = new Feed(made, server);
  return made;
}

// A promise that the test settles.
function held() {
  const promise = {};
  promise.wait = new Promise((answer, fail) => Object.assign(promise, { answer, fail }));
  return promise;
}

test("a run that was taken off and put on again while an answer was under way has all its points", async () => {
  const asked = [];
  const late = held();
  const server = { chart_points: async ({ wants: [{ run, cursor }] }) => {
    asked.push(cursor);
    if (cursor?.metrics.at === 1000) return late.wait;
    return [answer(run, 1, 1025)];
  } };
  const one = chart(["a"], server);
  one.series.get("a").take(answer("a", 1, 1000));
  const fetching = one.feed.fetchAll();
  one.series.set("a", new Series("a")); // unticked and ticked
  late.answer([answer("a", 1001, 1025)]);
  await fetching;
  await one.feed.fetchAll();
  const series = one.series.get("a");
  assert.deepEqual([series.n, series.step[0], asked.at(-1)], [1025, 1, null]);
});

test("what was asked for while the page was built is taken, and the chart asks for what was not", async () => {
  const asked = [];
  const server = { chart_points: async ({ wants }) => { asked.push(...wants.map(({ run }) => run)); return wants.map(({ run }) => answer(run, 1, 10)); } };
  globalThis.workbench = { early: { points: async (run, columns) => (run === "a" ? [answer("a", 1, 10 * columns.length)] : null) } };
  try {
    const two = chart(["a", "b"], server);
    await two.feed.fetchFresh([...two.series.values()]);
    assert.deepEqual([two.series.get("a").n, two.series.get("b").n, asked], [10, 10, ["b"]]);
  } finally {
    delete globalThis.workbench;
  }
});

test("when one of several new runs fails and another answers later, no timer is left behind", async () => {
  const running = new Set();
  const { setInterval, clearInterval } = globalThis;
  globalThis.setInterval = (...given) => { const timer = setInterval(...given); running.add(timer); return timer; };
  globalThis.clearInterval = (timer) => { running.delete(timer); clearInterval(timer); };
  try {
    const late = held();
    const server = { chart_points: async ({ wants: [{ run }] }) => {
      if (run === "gone") throw new Error("away");
      await late.wait;
      return [answer(run, 1, 10)];
    } };
    const two = chart(["gone", "slow"], server);
    await assert.rejects(two.feed.fetchFresh([...two.series.values()]), /away/);
    late.answer();
    await new Promise((next) => setImmediate(next));
    assert.deepEqual([two.series.get("slow").n, two.drawn, running.size], [10, 1, 0]);
  } finally {
    for (const timer of running) clearInterval(timer);
    Object.assign(globalThis, { setInterval, clearInterval });
  }
});

test("a run whose folder is gone is drawn once and is no longer at work", async () => {
  const one = chart(["a"], {});
  const series = one.series.get("a");
  series.take(answer("a", 1, 10));
  const gone = { run: "a", problem: "no run 'a'" };
  assert.equal(one.feed.accept([series], [gone]), true);
  assert.equal(one.feed.accept([series], [gone]), false);
  assert.deepEqual([one.drawn, series.state, series.problem], [1, null, "no run 'a'"]);
});

test("what a resume overwrote is put aside, in one answer or in several", () => {
  const rows = [[1, 100], [81, 150], [61, 90], [91, 200]];
  const [whole, portions] = [new Series("w"), new Series("p")];
  const steps = rows.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
  const resets = [[100, 81], [170, 61]];
  whole.take({ ...answer("w", 1, steps.length), steps: Buffer.from(Float64Array.from(steps).buffer).toString("base64"), resets, columns: { loss: base64(steps) } });
  rows.forEach(([first, last], i) => portions.take(answer("p", first, last, { resets: i === 1 || i === 2 ? [[0, first]] : [] })));
  for (const series of [whole, portions]) {
    assert.deepEqual([...series.x("step")], Array.from({ length: 200 }, (_, i) => i + 1));
    assert.equal(series.old.reduce((sum, piece) => sum + piece.step.length, 0), 20 + 90);
  }
});

test("panels and axes are what the server's table says: a new one needs nothing but its line there", async () => {
  const asked = [];
  const one = chart(["a"], { chart_points: async ({ wants, columns }) => { asked.push(columns); return [answer(wants[0].run, 1, 5, { columns: {} })]; } });
  one.view.panels = ["loss", "validation", "heat"];
  one.options.panels.heat = { title: "Heat", column: "heat" };
  one.view.x = "time";
  assert.deepEqual(one.feed.wantedColumns(), ["loss", "step_ms", "heat"]);
  await one.feed.fetchFresh([one.series.get("a")]);
  assert.deepEqual(asked, [["loss", "step_ms"]]);
});

test("news told while an answer is under way is asked for after it, though no run is at work", async () => {
  const asked = [], late = held();
  const server = { chart_points: async ({ wants: [{ run, cursor }] }) => {
    asked.push(cursor?.metrics.at ?? null);
    return asked.length === 1 ? late.wait : [answer(run, 11, 12, { state: "finished" })];
  } };
  const one = chart(["a"], server);
  const pauses = [];
  one.feed.soon = (ms) => pauses.push(ms);
  const first = one.feed.tick();
  one.feed.changed();
  late.answer([answer("a", 1, 10, { state: "finished" })]);
  await first;
  assert.deepEqual(pauses, [0]);
  await one.feed.tick();
  assert.deepEqual([asked.at(-1), one.series.get("a").n, pauses.at(-1)], [10, 12, 300000]);
});

test("a chart that is not drawn when its time has come looks again", async () => {
  let asked = 0;
  const one = chart(["a"], { chart_points: async ({ wants: [{ run }] }) => { asked += 1; return [answer(run, 1, 10)]; } });
  const pauses = [];
  one.feed.soon = (ms) => pauses.push(ms);
  one.root.offsetParent = null;
  await one.feed.tick();
  assert.deepEqual([asked, pauses], [0, [1000]]);
  one.root.offsetParent = {};
  await one.feed.tick();
  assert.equal(asked, 1);
});

test("what is wanted at once while an answer is under way is asked for right after it", async () => {
  const late = held();
  let asked = 0;
  const one = chart(["a"], { chart_points: async ({ wants: [{ run }] }) => { asked += 1; return asked === 1 ? late.wait : [answer(run, 11, 12, { state: "finished" })]; } });
  const first = one.feed.tick();
  one.feed.soon(0);
  late.answer([answer("a", 1, 10, { state: "finished" })]);
  await first;
  await new Promise((done) => setTimeout(done, 20));
  one.feed.stop();
  assert.deepEqual([asked, one.series.get("a").n], [2, 12]);
});
