// Going through the spikes of a chart, and when they are asked for; without a page.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document ??= { createElement: () => ({}) };
const { due, nextSpike, spikesIn } = await import("../../ui_assets/chart-spikes.js");

const series = (run, spikes) => ({ run, spikes, xOfStep: (step) => step * 10 });
const state = { view: { x: "tokens" }, shown: [series("a", [{ step: 30 }, { step: 5 }]), series("b", [{ step: 12 }]), series("c")] };

test("the spikes of all runs come in the order of the axis", () => {
  assert.deepEqual(spikesIn(state).map(({ run, x }) => [run, x]), [["a", 50], ["b", 120], ["a", 300]]);
});

test("next and previous go round the ends", () => {
  const all = spikesIn(state);
  assert.deepEqual([null, 50, 60, 120, 300].map((at) => nextSpike(all, at, 1).x), [50, 120, 120, 300, 50]);
  assert.deepEqual([null, 300, 130, 50].map((at) => nextSpike(all, at, -1).x), [300, 120, 120, 300]);
  assert.equal(nextSpike([], 3, 1), null);
});

test("a run is asked about first, after sixteen more steps, and once more when it ends", () => {
  const at = (n, spikesAt, state = "running") => due({ n, spikesAt, state });
  assert.deepEqual([at(0), at(1), at(20, 10), at(26, 10), at(10, 10), at(20, 10, "finished"), at(10, 10, "finished"), at(5, 10)],
    [false, true, false, true, false, true, false, true]);
});
