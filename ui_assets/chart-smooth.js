// A smoother without lag: at every step a straight line is fitted to the points around it, and the line's value there is
// taken; then the same once more over what came out, which turns the box of weights into a smooth bump. In the middle of a
// curve that is a centred mean; at its ends the line has no bias where a mean would lie above a falling loss.
// Pure; nothing here knows of the page.

// Widths one can choose, in steps. `auto` takes one of them, so that a growing run is not smoothed anew at every point.
export const WIDTHS = [2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10000];
const SHARE_SHOWN = 1 / 40; // of the steps in sight that `auto` averages over
const LEAST = 5; // steps: below that `auto` is off, and a short run is shown as it is
const SPIKE = 1e3; // times the sum of all that stays
const SHARE_PASSED = 1 / 3; // of the steps since the run's first that any width may reach back and forward

// The width in steps: 0 is off; "auto" depends on how many steps are in sight; below 1 is the weight of an exponential mean,
// as older addresses have it, and means as many steps as that mean had.
export function widthOf(smooth, stepsInSight) {
  if (smooth === "auto") {
    const wanted = stepsInSight * SHARE_SHOWN;
    return 1.1 * wanted < LEAST ? 0 : WIDTHS.findLast((width) => width <= 1.1 * wanted);
  }
  if (!(smooth > 0)) return 0;
  return smooth < 1 ? 1 / (1 - smooth) : smooth;
}

// Fits grow with a run: `extend` computes anew only where new points came within reach. `settled` is the number of points
// that more points can no longer change.
export class Smoother {
  constructor(width) {
    this.width = width;
    this.n = 0;
    this.settled = 0;
    this.once = new Float64Array(0);
    this.out = new Float64Array(0);
  }

  // Half of one pass's window around a step: two passes together weigh some `width` steps. Near the start of a run a loss falls
  // as a power of the step, and a window wider than a share of the steps passed would flatten that.
  reach(step, first) {
    return Math.min(this.width / 2, (step - first) * SHARE_PASSED);
  }

  // values and steps (ascending) hold at least n points, and the first `this.n` are those of the last call. NaN is a gap.
  extend(values, steps, n) {
    if (n === this.n) return this.out.subarray(0, n); // again, the open end would come out otherwise rounded, and be drawn anew
    if (this.out.length < n) {
      this.once = grown(this.once, values.length);
      this.out = grown(this.out, values.length);
    }
    const from = this.settled;
    const half = this.halfSettled || 0;
    this.pass(values, steps, half, n, this.once, n);
    this.pass(this.once, steps, from, n, this.out, n);
    this.n = n;
    this.halfSettled = this.firstOpen(steps, n, steps[n - 1]);
    this.settled = this.halfSettled < n ? this.firstOpen(steps, this.halfSettled, steps[this.halfSettled]) : n;
    return this.out.subarray(0, n);
  }

  // The first of n points whose window reaches `end` or beyond.
  firstOpen(steps, n, end) {
    let low = 0;
    let high = n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] + this.reach(steps[middle], steps[0]) < end) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Local lines through `values` at the points from..n. The sums are taken around the point itself, moved along with it, and
  // made anew once per window, and where a spike leaves it, so that none leaves its rounding behind. They are plain locals:
  // kept for a function of their own they were boxed at every change, and took four times as long.
  pass(values, steps, from, n, out) {
    const [half, origin] = [this.width / 2, steps[0]];
    let left = 0;
    let right = 0; // the window is left..right - 1
    let s0 = 0, s1 = 0, s2 = 0, t0 = 0, t1 = 0;
    let centre = 0;
    let fresh = from; // the next point at which the sums are made anew
    for (let i = from; i < n; i++) {
      const reach = Math.min(half, (steps[i] - origin) * SHARE_PASSED);
      const low = steps[i] - reach, high = steps[i] + reach;
      let again = i >= fresh;
      if (!again) {
        const d = steps[i] - centre;
        centre = steps[i];
        s2 += d * (d * s0 - 2 * s1); s1 -= d * s0; t1 -= d * t0;
        let largest = 0;
        for (; left < n && steps[left] < low; left++) {
          const value = values[left];
          if (left >= right || !(value - value === 0)) continue; // NaN and what has no end are gaps
          const x = steps[left] - centre;
          s0 -= 1; s1 -= x; s2 -= x * x; t0 -= value; t1 -= x * value;
          if (Math.abs(value) > largest) largest = Math.abs(value);
        }
        again = largest > SPIKE * Math.abs(t0);
      }
      if (again) {
        s0 = s1 = s2 = t0 = t1 = 0;
        centre = steps[i];
        if (i === from) left = lowerBound(steps, low, n);
        while (left < n && steps[left] < low) left++;
        right = left;
      }
      for (; right < n && steps[right] <= high; right++) {
        const value = values[right];
        if (!(value - value === 0)) continue;
        const x = steps[right] - centre;
        s0 += 1; s1 += x; s2 += x * x; t0 += value; t1 += x * value;
      }
      if (again) fresh = i + Math.max(64, right - left);
      const spread = s0 * s2 - s1 * s1;
      const value = values[i];
      out[i] = !(value - value === 0) ? NaN : spread > 1e-9 * s0 * s2 ? (s2 * t0 - s1 * t1) / spread : t0 / s0;
    }
  }
}

// The first index whose value is not below `wanted`.
export function lowerBound(values, wanted, n = values.length) {
  let low = 0;
  let high = n;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

function grown(values, room) {
  const more = new Float64Array(room).fill(NaN);
  more.set(values.subarray(0, Math.min(values.length, room)));
  return more;
}

export function smoothed(values, steps, width, n = values.length) {
  return new Smoother(width).extend(values, steps, n);
}

// The faintest mix of a colour with its background, both #rrggbb, that still has this contrast (WCAG 2: 3 for graphics).
export function faint(colour, background, contrast = 3) {
  const [from, to] = [channels(background), channels(colour)];
  if (!from || !to) return colour;
  for (let share = 0.2; share < 1; share += 0.05) {
    const mixed = from.map((value, i) => Math.round(value + share * (to[i] - value)));
    if (contrastOf(mixed, from) >= contrast) return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  }
  return colour;
}

export function channels(colour) {
  const found = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour.trim());
  return found && found.slice(1).map((part) => parseInt(part, 16));
}

// WCAG 2's contrast ratio of two colours given as channels 0..255.
export function contrastOf(one, other) {
  const luminance = (channel) => channel.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const [a, b] = [luminance(one), luminance(other)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}
