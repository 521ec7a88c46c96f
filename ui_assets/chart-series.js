// A run's points in the browser: decoding, what a resume overwrote, and the few points worth drawing.
// Pure functions and one class; nothing here knows of the page.

const { Smoother, lowerBound } = await import(`./chart-smooth.js${new URL(import.meta.url).search}`);

const TARGETS = "targets."; // columns of how many targets a source of a mixture had, as mygpt2/run_dir/by_source.py names them
const NUMBER = { f4: Float32Array, f8: Float64Array };

// Little-endian numbers from base64.
export function decode(text, kind = "f4") {
  return new NUMBER[kind](bytesOf(text).buffer);
}

// By the browser itself where it can: a tenth of the time.
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// [[first, count, difference], ...] or base64 of float64, as rows.progression writes them.
export function expand(coded, n) {
  if (typeof coded === "string") return decode(coded, "f8");
  const values = new Float64Array(n);
  let at = 0;
  for (const [first, count, rise] of coded) for (let i = 0; i < count; i++) values[at++] = first + i * rise;
  return values;
}

// The index nearest to `wanted`, or -1.
export function nearest(values, wanted, n = values.length) {
  if (!n) return -1;
  const at = lowerBound(values, wanted, n);
  if (at === 0) return 0;
  if (at === n) return n - 1;
  return wanted - values[at - 1] <= values[at] - wanted ? at - 1 : at;
}

// Linear interpolation of (xs, ys) at every x of `at`; NaN outside and beside nulls.
export function interpolate(xs, ys, at) {
  const out = new Float64Array(at.length).fill(NaN);
  let right = 0;
  for (let i = 0; i < at.length; i++) {
    const x = at[i];
    while (right < xs.length && xs[right] < x) right++;
    if (right === xs.length) break;
    if (xs[right] === x) out[i] = ys[right];
    else if (right > 0) {
      const share = (x - xs[right - 1]) / (xs[right] - xs[right - 1]);
      out[i] = ys[right - 1] + share * (ys[right] - ys[right - 1]);
    }
  }
  return out;
}

// What to draw of a line between x0 and x1 on so many pixel columns: every point while there are few, otherwise the lowest
// and the highest of each column, so that no spike is hidden. NaN marks a gap.
export function envelope(xs, ys, x0, x1, columns, log = false) {
  const n = Math.min(xs.length, ys.length);
  const first = Math.max(0, lowerBound(xs, x0, n) - 1);
  const last = Math.min(n, lowerBound(xs, x1, n) + 2);
  if (last - first <= 2 * columns + 2) {
    return { x: Array.from(xs.subarray(first, last)), y: Array.from(ys.subarray(first, last)), all: true };
  }
  const x = [];
  const y = [];
  const scale = log ? Math.log : (value) => value;
  const start = scale(x0);
  const width = (scale(x1) - start) / columns;
  let from = first;
  for (let column = 0; column <= columns && from < last; column++) {
    const edge = log ? Math.exp(start + (column + 1) * width) : start + (column + 1) * width;
    const to = column === columns ? last : Math.max(from, lowerBound(xs, edge, last));
    if (to > from) pushExtremes(xs, ys, from, to, x, y);
    from = to;
  }
  return { x, y, all: false };
}

function pushExtremes(xs, ys, from, to, x, y) {
  let low = -1;
  let high = -1;
  for (let i = from; i < to; i++) {
    const value = ys[i];
    if (!Number.isFinite(value)) continue;
    if (low < 0 || value < ys[low]) low = i;
    if (high < 0 || value > ys[high]) high = i;
  }
  if (low < 0) { x.push(xs[from]); y.push(NaN); return; }
  const [a, b] = low < high ? [low, high] : [high, low];
  x.push(xs[a]); y.push(ys[a]);
  if (b !== a) { x.push(xs[b]); y.push(ys[b]); }
}

// All points of one run, in order of steps, and apart from them what a later attempt overwrote.
export class Series {
  constructor(run) {
    this.run = run;
    this.clear();
  }

  clear() {
    this.cursor = null;
    this.n = 0;
    this.room = 0;
    this.step = new Float64Array(0);
    this.tokens = new Float64Array(0);
    this.columns = {};
    this.old = []; // {step, tokens, columns, after}: `after` rows of this series came before it
    this.attempts = []; // {attempt, step, last}: its first step and, once another followed, its last
    this.marks = [];
    this.sources = []; // of a mixture: {name, promised}, the share of the tokens
    this.version = (this.version || 0) + 1;
    this.made = new Map(); // curves made of the columns, by what they are
  }

  // Takes a reply of `points`. Returns whether anything changed.
  take(reply) {
    if (reply.replaced) this.clear();
    if (reply.marks_replaced) this.marks = [];
    this.state = reply.state;
    this.muon = reply.muon ?? null;
    this.ghost = reply.ghost ?? null; // of an imported log what is known of its protocol
    this.hosts = reply.hosts || this.hosts; // what is known of the machine; in the first reply
    this.cursor = reply.cursor;
    if (reply.marks) this.marks.push(...reply.marks);
    for (const source of reply.sources || []) if (!this.sources.some(({ name }) => name === source.name)) this.sources.push(source);
    if (reply.rows) this.append(reply);
    if (reply.rows || reply.marks || reply.replaced) this.version++;
    return Boolean(reply.rows || reply.marks || reply.replaced);
  }

  append(reply) {
    const n = reply.rows;
    const fresh = { step: expand(reply.steps, n), tokens: expand(reply.tokens, n), columns: {} };
    for (const [name, text] of Object.entries(reply.columns)) {
      fresh.columns[name] = typeof text === "string" ? decode(text) : new Float32Array(n).fill(text ?? NaN);
      if (!this.columns[name]) this.columns[name] = new Float32Array(this.room).fill(NaN);
    }
    for (const [row, attempt] of reply.attempts) {
      const before = this.attempts.at(-1);
      if (before) before.last = row ? fresh.step[row - 1] : this.n ? this.step[this.n - 1] : before.step;
      this.attempts.push({ attempt, step: fresh.step[row] });
    }
    let from = 0;
    for (const [row, step] of [...reply.resets, [n, null]]) {
      this.push(fresh, from, row);
      if (step !== null) this.overwrite(step);
      from = row;
    }
  }

  push(fresh, from, to) {
    this.grow(this.n + to - from);
    this.step.set(fresh.step.subarray(from, to), this.n);
    this.tokens.set(fresh.tokens.subarray(from, to), this.n);
    for (const [name, values] of Object.entries(this.columns)) {
      const part = fresh.columns[name];
      if (part) values.set(part.subarray(from, to), this.n);
      else values.fill(NaN, this.n, this.n + to - from);
    }
    this.n += to - from;
  }

  grow(needed) {
    if (needed <= this.room) return;
    this.room = Math.max(needed, Math.ceil(this.room * 1.5), 256);
    const larger = (values) => { const more = new values.constructor(this.room).fill(NaN); more.set(values); return more; };
    this.step = larger(this.step);
    this.tokens = larger(this.tokens);
    for (const name of Object.keys(this.columns)) this.columns[name] = larger(this.columns[name]);
  }

  // A later attempt began at `step`: what was known from there on is put aside.
  overwrite(step) {
    const cut = lowerBound(this.step, step, this.n);
    if (cut === this.n) return;
    const columns = {};
    for (const [name, values] of Object.entries(this.columns)) columns[name] = values.slice(cut, this.n);
    this.old.push({ step: this.step.slice(cut, this.n), tokens: this.tokens.slice(cut, this.n), columns, after: cut });
    this.n = cut;
    this.made.clear();
  }

  // Columns fetched later: a series of the same rows that has them.
  adopt(other) {
    for (const [name, values] of Object.entries(other.columns)) {
      const column = new Float32Array(this.room).fill(NaN);
      column.set(values.subarray(0, Math.min(other.n, this.n)));
      this.columns[name] = column;
      this.old.forEach((piece, i) => { if (other.old[i]) piece.columns[name] = other.old[i].columns[name]; });
      for (const key of this.made.keys()) if (key.startsWith(`smooth ${name} `)) this.made.delete(key);
    }
    this.version++; // of all that is made but what is smoothed, which is of one column and stays
  }

  // x of every point: steps, tokens, training seconds (steps and waiting, pauses left out) or FLOPs.
  x(kind) {
    if (kind === "step") return this.step.subarray(0, this.n);
    if (kind === "tokens") return this.tokens[0] < 0 ? new Float64Array(this.n).fill(NaN) : this.tokens.subarray(0, this.n); // -1: unknown
    if (kind === "time") return this.remember("x time", () => clock(this.columns, this.n, 0));
    return this.remember(`x flops ${this.flops}`, () => this.tokens.subarray(0, this.n).map((v) => v * (this.flops || NaN)));
  }

  xOfOld(piece, kind) {
    if (kind === "step") return piece.step;
    if (kind === "tokens") return piece.tokens;
    if (kind === "flops") return piece.tokens.map((v) => v * (this.flops || NaN));
    return clock(piece.columns, piece.step.length, piece.after ? this.x("time")[piece.after - 1] : 0);
  }

  values(name) {
    return this.columns[name] ? this.columns[name].subarray(0, this.n) : new Float32Array(this.n).fill(NaN);
  }

  // A column times a factor.
  scaled(name, factor) {
    if (factor === 1) return this.values(name);
    return this.remember(`scaled ${name} ${factor}`, () => this.values(name).map((value) => value * factor));
  }

  // What a loss in nats per token is multiplied by to be in bits per byte: by its held-out text's bytes per token, as the
  // last validation counted them. null before that. `source`: of that one's held-out text.
  perByte(source = null) {
    const of = (mark) => (source === null ? [mark.value, mark.bits] : mark.sources?.[source] || []);
    const found = this.validation().map(of).filter(([value, bits]) => bits > 0 && value > 0).pop();
    return found ? found[1] / found[0] : null;
  }

  // The share of the targets that a source of a mixture has had, null before that is known. Steps taken again count once.
  share(source) {
    const had = this.remember("had", () => Object.fromEntries(Object.keys(this.columns).filter((name) => name.startsWith(TARGETS))
      .map((name) => [name.slice(TARGETS.length), this.values(name).reduce((sum, count) => sum + (count || 0), 0)])));
    const all = Object.values(had).reduce((sum, count) => sum + count, 0);
    return all > 0 && source in had ? had[source] / all : null;
  }

  // A column smoothed over `width` steps: {y, settled}, of which more points cannot change the first `settled` values.
  smooth(name, width) {
    const key = `smooth ${name} ${width}`;
    let kept = this.made.get(key);
    if (!kept) {
      for (const other of this.made.keys()) if (other.startsWith(`smooth ${name} `)) this.made.delete(other);
      kept = new Smoother(width);
      this.made.set(key, kept);
    }
    const y = kept.extend(this.columns[name], this.step, this.n);
    return { y, settled: kept.settled };
  }

  remember(key, make) {
    const kept = this.made.get(key);
    if (kept && kept.version === this.version) return kept.value;
    const value = make();
    this.made.set(key, { version: this.version, value });
    return value;
  }

  // x of a step that need not have been logged.
  xOfStep(step, kind) {
    if (kind === "step") return step;
    const at = lowerBound(this.step, step, this.n);
    return this.n ? this.x(kind)[Math.min(at, this.n - 1)] : NaN;
  }

  // Validation points that count: of one step the last, and none that a later attempt overwrote.
  validation() {
    return this.remember("validation", () => {
      const found = new Map();
      for (const mark of this.marks) if (mark.kind === "eval" && !this.overwritten(mark)) found.set(mark.step, mark);
      return [...found.values()].sort((a, b) => a.step - b.step);
    });
  }

  overwritten(mark) {
    return this.attempts.some((other) => mark.attempt !== null && other.attempt > mark.attempt && other.step <= mark.step);
  }

  // The step of a mark that has none: the newest of its attempt.
  stepOf(mark) {
    if (mark.step !== null) return mark.step;
    const own = this.attempts.find((one) => one.attempt === mark.attempt);
    return own?.last ?? (this.n ? this.step[this.n - 1] : 0);
  }
}

function clock(columns, n, start) {
  const seconds = new Float64Array(n);
  let sum = start;
  for (let i = 0; i < n; i++) {
    const took = (columns.step_ms?.[i] || 0) + (columns.data_wait_ms?.[i] || 0);
    sum += took / 1000;
    seconds[i] = sum;
  }
  return seconds;
}
