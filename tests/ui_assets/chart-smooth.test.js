// Smoothing that does not lie: no lag, no dependence on how the points arrived, readable beside the raw curve.
import assert from "node:assert/strict";
import { test } from "node:test";

const { Smoother, WIDTHS, channels, contrastOf, faint, smoothed, widthOf } = await import("../../ui_assets/chart-smooth.js");

const steps = (n, rise = 1) => Float64Array.from({ length: n }, (_, i) => 1 + i * rise);
// A reproducible noise of standard deviation 1: sums of twelve uniform numbers (a linear congruential generator).
function noise(n, seed) {
  let state = seed;
  const uniform = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Float64Array.from({ length: n }, () => Array.from({ length: 12 }, uniform).reduce((a, b) => a + b) - 6);
}

test("a straight line stays as it is, to its very ends, whatever its slope", () => {
  for (const slope of [-0.01, 0, 3]) {
    const xs = steps(400);
    const line = xs.map((x) => 7 + slope * x);
    const out = smoothed(line, xs, 50);
    for (let i = 0; i < 400; i++) assert.ok(Math.abs(out[i] - line[i]) < 1e-9, `${slope} at ${i}: ${out[i]} is not ${line[i]}`);
  }
});

test("on a falling loss the curve runs through the points, at the start and at the newest step too", () => {
  for (const n of [60, 300, 5000]) {
    const xs = steps(n);
    const truth = xs.map((x) => 3 + 5 * x ** -0.4);
    const error = noise(n, n);
    const width = widthOf("auto", n) || 2;
    const out = smoothed(truth.map((y, i) => y + 0.05 * error[i]), xs, width);
    const bias = [0, 0, 0]; // of the first, the middle and the last third
    for (let i = 0; i < n; i++) bias[Math.floor((3 * i) / n)] += (out[i] - truth[i]) / (n / 3);
    for (const part of bias) assert.ok(Math.abs(part) < 0.02, `${n} steps: ${bias}`);
    assert.ok(Math.abs(out[n - 1] - truth[n - 1]) < 0.15, `${n} steps: the end is ${out[n - 1]}, not ${truth[n - 1]}`);
  }
});

test("noise is averaged over the width that was asked for", () => {
  for (const width of [20, 100, 500]) {
    const n = 40000;
    const out = smoothed(noise(n, 5), steps(n), width);
    const inner = out.subarray(width * 3, n - width * 3);
    const deviation = Math.sqrt(inner.reduce((sum, value) => sum + value * value, 0) / inner.length);
    // a triangle of half-width `width` averages 1.5 times as many independent values
    assert.ok(Math.abs(deviation * Math.sqrt(1.5 * width) - 1) < 0.15, `${width}: ${deviation}`);
  }
});

test("points that arrive in portions give the curve of all points, and settled values never change", () => {
  const n = 3000;
  const xs = steps(n, 3);
  const ys = Float32Array.from(noise(n, 9), (value, i) => value + 100 / (i + 1));
  ys.fill(NaN, 700, 750);
  ys[1234] = 1e12;
  const whole = smoothed(ys, xs, 90);
  const smoother = new Smoother(90);
  let before = [];
  for (let to = 17; to < n + 17; to += 17) {
    const out = smoother.extend(ys, xs, Math.min(to, n));
    before.forEach((value, i) => assert.ok(Object.is(value, out[i]), `the settled value ${i} changed at ${to}`));
    before = Array.from(out.subarray(0, smoother.settled));
  }
  const out = smoother.extend(ys, xs, n);
  for (let i = 0; i < n; i++) {
    if (Number.isNaN(ys[i])) assert.ok(Number.isNaN(out[i]));
    else assert.ok(Math.abs(out[i] - whole[i]) <= 1e-6 * Math.max(1, Math.abs(whole[i])), `${i}: ${out[i]} is not ${whole[i]}`);
  }
  assert.ok(smoother.settled > n - 100 && smoother.settled < n);
});

test("a spike is felt within two windows and leaves nothing behind", () => {
  const ys = new Float64Array(2000).fill(2);
  ys[1000] = 1e15;
  const out = smoothed(ys, steps(2000), 40);
  for (const i of [900, 959, 1041, 1100, 1999]) assert.ok(Math.abs(out[i] - 2) < 1e-6, `${i}: ${out[i]}`);
});

test("one point and none are smoothed to themselves", () => {
  assert.deepEqual([...smoothed(new Float64Array([4]), steps(1), 50)], [4]);
  assert.deepEqual([...smoothed(new Float64Array(0), steps(0), 50)], []);
});

test("auto goes with what is in sight, and older addresses keep their meaning", () => {
  assert.equal(widthOf("auto", 60), 0);
  assert.equal(widthOf("auto", 140), 0, "a short run is shown as it is");
  assert.equal(widthOf("auto", 200), 5);
  assert.equal(widthOf("auto", 70000), 1500);
  assert.equal(widthOf("auto", 1e7), WIDTHS.at(-1));
  assert.deepEqual([widthOf(0, 99), widthOf(50, 9), Math.round(widthOf(0.98, 9))], [0, 50, 50]);
});

test("the raw curve has a contrast of 3 to 1 in both themes, and the smoothed one more", async () => {
  const { LOOKS } = await import("../../ui_assets/chart-look.js");
  for (const { panel, runs } of LOOKS) {
    for (const colour of runs) {
      const [raw, bold, ground] = [faint(colour, panel), colour, panel].map(channels);
      assert.ok(contrastOf(raw, ground) >= 3, `${colour} on ${panel}`);
      assert.ok(contrastOf(bold, ground) > 1.3 * contrastOf(raw, ground), `${colour} on ${panel}: the curves are alike`);
    }
  }
});
