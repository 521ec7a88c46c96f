// A run's points in the browser: what is drawn of many.
import assert from "node:assert/strict";
import { test } from "node:test";

const { envelope } = await import("../../ui_assets/chart-series.js");

test("no spike is hidden, gaps stay, and few points are drawn of many", () => {
  const n = 70000;
  const xs = Float64Array.from({ length: n }, (_, i) => i + 1);
  const ys = new Float32Array(n).fill(3);
  ys[12345] = 99;
  ys[54321] = -99;
  ys.fill(NaN, 20000, 30000);
  for (const log of [false, true]) {
    const { x, y } = envelope(xs, ys, 1, n, 800, log);
    assert.ok(y.includes(99) && y.includes(-99) && y.some(Number.isNaN));
    assert.ok(x.length <= 1700 && x.every((value, i) => i === 0 || value >= x[i - 1]));
  }
});

test("few points are drawn as they are, with the neighbours of the range", () => {
  const xs = Float64Array.from({ length: 1000 }, (_, i) => i);
  const found = envelope(xs, Float32Array.from(xs, (x) => x % 7), 100, 400, 800);
  assert.deepEqual([found.all, found.x[0], found.x.at(-1), found.x.length], [true, 99, 401, 303]);
});
