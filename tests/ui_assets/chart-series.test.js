// A run's points in the browser: what is drawn of many.
import assert from "node:assert/strict";
import { test } from "node:test";

const { Series, decode, envelope } = await import("../../ui_assets/chart-series.js");
const { Smoother } = await import("../../ui_assets/chart-smooth.js");

const base64 = (values) => Buffer.from(Float32Array.from(values).buffer).toString("base64");
const answer = (n, columns) => ({ rows: n, steps: [[1, n, 1]], tokens: [[1, n, 1]], attempts: [], resets: [], columns });

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

test("columns that come later leave what is smoothed as it is, to the last bit, and nothing is smoothed again", (t) => {
  const loss = Array.from({ length: 5000 }, (_, i) => 3 + 7 / (1 + i) + Math.sin(i * i));
  const [series, later] = [new Series("a"), new Series("a")];
  series.take(answer(loss.length, { loss: base64(loss) }));
  later.take(answer(loss.length, { lr: base64(loss) }));
  const passes = t.mock.method(Smoother.prototype, "pass").mock;
  const once = Float64Array.from(series.smooth("loss", 100).y);
  series.smooth("loss", 100);
  series.adopt(later);
  assert.deepEqual([series.smooth("loss", 100).y, passes.callCount()], [once, 2]);
  later.columns.loss = Float32Array.from(loss, (value) => 2 * value);
  series.adopt(later);
  assert.ok(series.smooth("loss", 100).y[1000] > 1.5 * once[1000] && passes.callCount() === 4); // another column's is
});

test("numbers are decoded by the browser where it can, and the same where it cannot", (t) => {
  const [values, kept] = [[0, 1.5, -2, NaN, Infinity], Uint8Array.fromBase64];
  t.after(() => { if (kept) Uint8Array.fromBase64 = kept; else delete Uint8Array.fromBase64; });
  delete Uint8Array.fromBase64;
  assert.deepEqual(Array.from(decode(base64(values))), values);
  let calls = 0;
  Uint8Array.fromBase64 = (text) => { calls++; return Uint8Array.from(Buffer.from(text, "base64")); };
  assert.deepEqual([Array.from(decode(base64(values))), calls], [values, 1]);
});

test("a column told as one value, or as none, has it in every row", () => {
  const series = new Series("a");
  series.take(answer(3, { loss: base64([3, 2, 1]), lr: 0.5, mfu: null }));
  assert.deepEqual(["loss", "lr", "mfu"].map((name) => Array.from(series.values(name))), [[3, 2, 1], [0.5, 0.5, 0.5], [NaN, NaN, NaN]]);
});
