// Ticks of the axes where plotly's own overlap or mean nothing: logarithmic ones, and time. Pure functions.

export function onAxis(range, log) {
  return log ? range.map((value) => Math.log10(value)) : range;
}

const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000, 2592000];

// Hours and minutes where plotly would write thousands of seconds.
export function timeTicks({ view, range }) {
  if (view.x !== "time" || view.logx) return view.x === "time" ? { ticksuffix: " s" } : {};
  const step = CLOCK.find((seconds) => (range[1] - range[0]) / seconds <= 8) || 30 * 86400;
  const values = [];
  for (let at = Math.ceil(range[0] / step) * step; at <= range[1] && values.length < 40; at += step) values.push(at);
  return { tickmode: "array", tickvals: values, ticktext: values.map(duration) };
}

// No more ticks than there are steps between the ends: there is no step 1.5.
export function stepTicks({ view, range }) {
  return view.x === "step" && !view.logx && range[1] - range[0] < 20 ? { nticks: Math.max(1, Math.floor(range[1] - range[0])) } : {};
}

// Ticks of a logarithmic axis from a to b, at most so many that their labels stay apart; plotly's own overlap.
export function logTicks([a, b], most) {
  const decades = Math.log10(b / a);
  if (decades < 1) {
    const found = [1, 2, 4].map((finer) => apart(evenly(a, b, finer * most), decades / most));
    return ticks(found.find((values) => values.length >= Math.min(4, most)) || found.at(-1));
  }
  const [first, last] = [Math.floor(Math.log10(a)), Math.ceil(Math.log10(b))];
  for (const mantissas of [[1, 2, 3, 4, 5, 6, 8], [1, 2, 5], [1, 3], [1]]) {
    const closest = Math.min(...mantissas.map((m, i) => Math.log10((mantissas[i + 1] ?? 10) / m)));
    if (decades / closest > most && mantissas.length > 1) continue;
    const every = Math.max(1, Math.ceil(decades / closest / most)); // decades
    const values = [];
    for (let power = Math.ceil(first / every) * every; power <= last; power += every) values.push(...mantissas.map((m) => m * 10 ** power));
    return ticks(values.filter((value) => value >= a && value <= b));
  }
  return {};
}

// Those of rising values that lie at least so many decades apart.
function apart(values, decades) {
  return values.reduce((kept, value) => (kept.length && Math.log10(value / kept.at(-1)) < decades ? kept : [...kept, value]), []);
}

function evenly(a, b, most) {
  const raw = (b - a) / Math.max(1, most);
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * size).find((wanted) => wanted >= raw);
  const values = [];
  for (let i = Math.ceil(a / step); i * step <= b; i++) values.push(i * step);
  return values;
}

function ticks(values) {
  return { tickmode: "array", tickvals: values, ticktext: values.map(short) };
}

function short(value) {
  const unit = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(value) >= size && Math.abs(value) < 1e15);
  if (unit) return `${+(value / unit[0]).toPrecision(4)}${unit[1]}`;
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e15 ? value.toExponential().replace("e+", "e") : String(+value.toPrecision(4));
}

export function duration(seconds) {
  if (!(Math.abs(seconds) >= 1)) return `${+(seconds || 0).toPrecision(2)} s`;
  const whole = Math.round(seconds);
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  return parts.filter(([count]) => count > 0).slice(0, 2).map(([count, unit]) => `${count} ${unit}`).join(" ");
}
