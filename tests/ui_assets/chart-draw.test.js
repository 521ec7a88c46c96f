// One panel as a figure: which ranges, lines and ticks; without a page.
import assert from "node:assert/strict";
import { test } from "node:test";

const { logTicks, stepTicks } = await import("../../ui_assets/chart-axes.js");
const { cautions, curves, referenceOf, smoothingWidth, unitOf, wholeRange } = await import("../../ui_assets/chart-curves.js");
const { alike, copied, figure, markKey } = await import("../../ui_assets/chart-draw.js");
const { keyOf } = await import("../../ui_assets/chart-export.js");
const { validationKey } = await import("../../ui_assets/chart-legend.js");
const { LOOKS, dashOf } = await import("../../ui_assets/chart-look.js");
const { Series } = await import("../../ui_assets/chart-series.js");

const options = { axes: { step: { title: "step" }, tokens: { title: "tokens" } }, panels: {
  loss: { title: "Loss", column: "loss", loss: true, smooth: true, log: true, marks: true, points: "validation" }, validation: { title: "Validation", loss: true } } };
const withSources = { ...options, panels: { ...options.panels, sources: { title: "Loss by source", sources: true, loss: true } } };
const base64 = (values) => Buffer.from(Float32Array.from(values).buffer).toString("base64");

function run(name, losses, state = "finished") {
  const series = new Series(name);
  const n = losses.length;
  series.take({ run: name, state, rows: n, steps: [[1, n, 1]], tokens: [[512, n, 512]], attempts: [[0, 1]], resets: [], columns: { loss: base64(losses) },
    cursor: {}, replaced: false, more: false });
  return series;
}

function chart(shown, view = {}, touch = false) {
  return { options, series: new Map(shown.map((series) => [series.run, series])), view: { x: "step", logx: false, logy: false, smooth: "auto", unit: "auto", runs: shown.map((series) => series.run), minus: "", shade: null, range: null, ...view }, shown, yranges: {}, cursor: { touch },
    theme: { ...LOOKS[0], font: "sans-serif" }, colours: new Map(shown.map((series, i) => [series.run, i + 1])), get range() { return this.view.range || wholeRange(this); } };
}

const falling = (n) => Array.from({ length: n }, (_, i) => 3 + 5 * (i + 1) ** -0.4);

test("swiping a chart on a touch screen scrolls and does not zoom", () => {
  const touched = figure(chart([run("a", falling(100))], {}, true), "loss", 800, 300).layout;
  assert.deepEqual([touched.dragmode, touched.xaxis.fixedrange, touched.yaxis.fixedrange], [false, true, true]);
  assert.equal(figure(chart([run("a", falling(100))]), "loss", 800, 300).layout.dragmode, "zoom");
});

test("the end of a run at work is drawn as open, that of a finished one is not", () => {
  const dashes = (state) => figure(chart([run("a", falling(4000), state)]), "loss", 800, 300).data.map((trace) => trace.line.dash).filter(Boolean);
  assert.deepEqual(dashes("running"), ["solid", "2px,2px"]);
  assert.deepEqual(dashes("finished"), ["solid"]);
});

test("a figure is drawn again exactly when it looks otherwise", () => {
  const draw = (change = () => {}, losses = falling(50)) => { const one = chart([run("a", losses)]); change(one); return figure(one, "loss", 800, 300); };
  const seen = copied(draw());
  assert.ok(alike(seen, draw()));
  assert.ok(alike(copied(draw(() => {}, [3, NaN, 2, 4])), draw(() => {}, [3, NaN, 2, 4])));
  for (const other of [draw(() => {}, falling(51)), draw(() => {}, falling(50).with(7, 3)), draw(() => {}, falling(50).with(7, NaN)),
    draw((one) => { one.view.range = [10, 20]; }), draw((one) => { one.theme.runs = ["#000000"]; }), draw((one) => { one.yranges.loss = [0, 1]; })]) {
    assert.ok(!alike(seen, other));
  }
  const given = draw();
  const kept = copied(given);
  given.layout.xaxis.range = [10, 20]; // as plotly does while somebody drags
  assert.ok(alike(kept, draw()) && !alike({ ...kept, layout: null }, draw()));
});

test("a single point is seen", () => {
  const { data } = figure(chart([run("a", [4])]), "loss", 800, 300);
  assert.match(data[0].mode, /markers/);
  assert.doesNotMatch(figure(chart([run("a", falling(50))]), "loss", 800, 300).data[0].mode, /markers/);
});

test("the width of smoothing follows the zoom", () => {
  const one = chart([run("a", falling(4000))]);
  assert.equal(smoothingWidth(one), 100);
  one.view.range = [100, 300];
  assert.equal(smoothingWidth(one), 5);
  one.view.smooth = 50;
  assert.equal(smoothingWidth(one), 50);
});

test("labels of a logarithmic axis stay apart and are never fewer than two", () => {
  for (const [a, b] of [[1, 70000], [0.9, 1.1], [2, 9], [1e-6, 1e12], [512, 40e9], [3.01, 3.4], [1, 11]]) {
    for (const most of [3, 6, 14]) {
      const { tickvals } = logTicks([a, b], most);
      const pixels = tickvals.map((value) => (Math.log10(value / a) / Math.log10(b / a)) * most);
      const gaps = pixels.slice(1).map((at, i) => at - pixels[i]);
      assert.ok(tickvals.length >= 2, `${a}..${b} with ${most}: ${tickvals}`);
      assert.ok(Math.min(...gaps) > 0.8, `${a}..${b} with ${most}: ${tickvals}`);
    }
  }
  assert.deepEqual(logTicks([1, 2e6], 7).ticktext, ["1", "10", "100", "1k", "10k", "100k", "1M"]);
});

test("of runs that share a colour the later ones are dashed", () => {
  const one = chart(["a", "b", "c"].map((name) => run(name, falling(400))));
  one.view.runs = ["a", "b", "c"];
  one.colours = new Map([["a", 3], ["b", 5], ["c", 3]]);
  assert.deepEqual(["a", "b", "c"].map((name) => dashOf(one, name)), ["solid", "solid", "7px,3px"]);
  const { data } = figure(one, "loss", 800, 300);
  assert.ok(data.some((trace) => trace.line.dash === "7px,3px"));
});

function validated(name, losses, tokenizer, evals) {
  const series = run(name, losses);
  series.tokenizer = tokenizer;
  series.take({ run: name, state: "finished", cursor: {}, marks: evals.map(([step, value, bits, text = "t"]) => ({ kind: "eval", attempt: 1, step, value, bits, text, documents: 74 })) });
  return series;
}

test("validation points lie in the loss panel, and both go by the unit", () => {
  const one = chart([validated("a", falling(60), "gpt2", [[20, 4, 2], [60, 3.6, 1.8]])]);
  const points = () => figure(one, "loss", 800, 300).data.find((trace) => trace.marker?.symbol === "circle");
  assert.deepEqual([unitOf(one), points().x, points().y], ["nats", [20, 60], [4, 3.6]]);
  const nats = figure(one, "loss", 800, 300).data[0].y[9];
  one.view.unit = "bits";
  assert.deepEqual(points().y, [2, 1.8]);
  assert.ok(Math.abs(figure(one, "loss", 800, 300).data[0].y[9] - nats / 2) < 1e-6);
  assert.deepEqual(one.shown[0].validation().length, 2, "reading changes nothing");
});

test("runs with several tokenizers are shown in bits per byte, and that is said; a choice stays", () => {
  const two = chart([validated("a", falling(60), "gpt2", [[60, 3.6, 1.8]]), validated("b", falling(60), "gpt2:2048", [[60, 3.9, 2.1, "u"]])]);
  assert.equal(unitOf(two), "bits");
  assert.match(cautions(two).join(" "), /^In bits per byte because these runs have different tokenizers \(gpt2, gpt2:2048\)\.$/);
  two.view.unit = "nats";
  assert.equal(unitOf(two), "nats");
  assert.match(cautions(two).join(" "), /losses per token do not compare, bits per byte do/);
});

test("another held-out text and a run without a validation are not passed over in silence", () => {
  const two = chart([validated("a", falling(60), "gpt2", [[60, 3.6, 1.8, "t"]]), validated("b", falling(60), "gpt2", [[60, 3.9, 1.9, "u"]])]);
  assert.match(cautions(two).join(" "), /held-out texts differ/);
  const early = chart([run("c", falling(60))], { unit: "bits" });
  assert.match(cautions(early).join(" "), /c: no bits per byte before the first validation/);
  assert.equal(figure(early, "loss", 800, 300).data.length, 0);
});

test("GPT-2 of another tokenizer is spread over the run's tokens, and says so", () => {
  const one = chart([validated("a", falling(60), "gpt2:2048", [[60, 4, 2]])]);
  assert.equal(referenceOf(one, one.shown[0]), null);
  one.shown[0].reference = { found: { of: "GPT-2 124M", loss: 3.5, bits: 1.5, window: 1024, same: false, text: "t" } };
  const known = referenceOf(one, one.shown[0]);
  assert.deepEqual([known.value, known.unit], [3, " per token of this run"]);
  const { annotations, shapes, yaxis } = figure(one, "loss", 800, 300).layout;
  assert.equal(annotations[0].text, "GPT-2 124M on this held-out text: 3 per token of this run, windows of 1,024 tokens");
  assert.ok(shapes[0].y0 === 3 && yaxis.range[0] < 3);
  one.view.unit = "bits";
  assert.equal(referenceOf(one, one.shown[0]).value, 1.5);
  one.shown[0].reference.found.same = true;
  one.view.unit = "nats";
  assert.equal(referenceOf(one, one.shown[0]).value, 3.5);
});

test("the losses of the very first steps do not flatten the others, and a zoom shows them", () => {
  const one = chart([run("a", Array.from({ length: 4000 }, (_, i) => 3 + 7 / (1 + i / 20)))]);
  const whole = figure(one, "loss", 800, 300);
  assert.ok(whole.cut > 3 && whole.cut < 5 && whole.layout.yaxis.range[1] < 5);
  one.view.range = [1, 4000];
  const zoomed = figure(one, "loss", 800, 300);
  assert.ok(zoomed.cut === null && zoomed.layout.yaxis.range[1] > 9);
  assert.equal(figure(chart([run("b", Array.from({ length: 400 }, (_, i) => 5 - i / 400))]), "loss", 800, 300).cut, null);
  const spike = falling(400);
  spike[300] = 40;
  assert.ok(figure(chart([run("c", spike)]), "loss", 800, 300).layout.yaxis.range[1] > 40, "a later spike is no beginning");
});

test("a band of noise is fainter than the line through it, single steps are at full strength", () => {
  const colours = (n) => figure(chart([run("a", falling(n))]), "loss", 800, 300).data.map((trace) => trace.line.color);
  const [few, many] = [colours(800), colours(8000)];
  assert.equal(few[0], few[2]);
  assert.notEqual(many[0], many[2]);
});

test("an imported log is drawn dotted, and what it says of the others is told", () => {
  const ghost = run("g", falling(60)), own = run("a", falling(60));
  ghost.ghost = "protocol unknown";
  const state = chart([own, ghost]);
  assert.deepEqual([dashOf(state, "a"), dashOf(state, "g")], ["solid", "1px,4px"]);
  assert.match(cautions(state).join(" "), /g is an imported log, protocol unknown: its level says nothing/);
  ghost.ghost = "protocol edu-seed";
  assert.match(cautions(state).join(" "), /compare with those of the same protocol and tokenizer only/);
  ghost.tokens.fill(-1);
  assert.ok(ghost.x("tokens").every(Number.isNaN), "a log without tokens is nowhere on that axis");
});

test("a band lies behind the curves of the losses, can be turned off, and goes with the axis and the unit", () => {
  const one = run("a", falling(100));
  one.band = { preset: "tiny", words: "99% band of 5 runs", step: [20, 60, 100, 140], low: [3, 2.9, 2.8, 2.7], high: [3.4, 3.2, 3, 2.9] };
  const area = (view) => figure(chart([one], view), "loss", 800, 300).data.filter((trace) => trace.fill === "toself");
  const [drawn] = area({});
  assert.deepEqual(drawn.x, [20, 60, 100, 140, 140, 100, 60, 20]);
  assert.deepEqual(drawn.y, [3.4, 3.2, 3, 2.9, 2.7, 2.8, 2.9, 3]);
  assert.equal(figure(chart([one]), "loss", 800, 300).data[0].fill, "toself", "behind all lines");
  assert.deepEqual([area({ band: false }).length, area({ minus: "b" }).length], [0, 0]);
  assert.equal(area({ x: "tokens" })[0].x[3], 140 * 512, "also where the run has not come to yet");
  assert.equal(area({ unit: "bits" }).length, 0, "without a validation there are no bits per byte");
  assert.match(markKey(chart([one])).join(), /99% band of 5 runs/);
});

// A mixture's losses by source.

const MIXED = { ...options, panels: { ...options.panels, sources: { title: "Loss by source", loss: true, log: true, smooth: true, sources: true } } };

function mixed(name, losses, sources = Object.keys(losses)) {
  const series = run(name, falling(10));
  const columns = Object.fromEntries(Object.entries(losses).flatMap(([source, values], i) => [
    [`loss.${source}`, base64(values)], [`targets.${source}`, base64(Array(10).fill([30, 10][i]))]]));
  const beside = new Series(name);
  beside.take({ run: name, state: "finished", rows: 10, steps: [[1, 10, 1]], tokens: [[512, 10, 512]], attempts: [[0, 1]], resets: [], columns, cursor: {},
    marks: [
      { kind: "eval", step: 5, attempt: 1, value: 3, bits: 1.5, sources: { docs: [2, 0.5], code: [4, null] } }] });
  series.take({ rows: 0, cursor: {}, sources: sources.map((source) => ({ name: source, promised: 0.5 })), marks: beside.marks });
  series.adopt(beside);
  return series;
}

const many = (shown, view) => ({ ...chart(shown, view), options: MIXED, get range() { return this.view.range || wholeRange(this); } });

test("each source of a mixture is a curve in the colour of its place, with its validation points", () => {
  const state = many([mixed("a", { docs: falling(10), code: Array(10).fill(1) }), run("plain", falling(10))]);
  const found = curves(state, "sources");
  assert.deepEqual(found.map(({ series, source, place }) => [series.run, source, place]), [["a", "docs", 0], ["a", "code", 1]]);
  const { data } = figure(state, "sources", 800, 300);
  const lines = data.filter(({ mode }) => mode === "lines"), points = data.filter(({ mode }) => mode === "lines+markers");
  assert.deepEqual(lines.map(({ line }) => line.color), LOOKS[0].runs.slice(0, 2));
  assert.deepEqual(points.map(({ y, marker }) => [y[0], marker.color]), [[2, LOOKS[0].runs[0]], [4, LOOKS[0].runs[1]]]);
  assert.equal(curves(many([run("plain", falling(10))]), "sources").length, 0);
});

test("a source has one colour in all runs, which differ in their dashes", () => {
  const state = many([mixed("a", { docs: falling(10), code: falling(10) }), mixed("b", { code: falling(10), web: falling(10) })]);
  const lines = figure(state, "sources", 800, 300).data.filter(({ mode }) => mode === "lines");
  const [first, second, third] = LOOKS[0].runs;
  assert.deepEqual(lines.map(({ line }) => [line.color, line.dash]), [[first, "solid"], [second, "solid"], [second, "7px,3px"], [third, "7px,3px"]]);
});

test("a source's loss in bits goes by that source's own bytes, and its share by the targets it had", () => {
  const series = mixed("a", { docs: Array(10).fill(8), code: Array(10).fill(4) });
  const [docs, ...rest] = curves(many([series], { unit: "bits" }), "sources");
  assert.equal(docs.raw[0], 2); // 0.5 / 2 bits a nat
  assert.equal(rest.length, 0, "of code no bits are known");
  assert.deepEqual([series.share("docs"), series.share("code"), series.share("web")], [0.75, 0.25, null]);
});

test("steps that are taken again after a kill count once in the share that a source had", () => {
  const series = mixed("a", { docs: falling(10), code: falling(10) });
  const columns = { loss: base64([1, 1, 1, 1, 1]), "targets.docs": base64([0, 0, 0, 0, NaN]), "targets.code": base64([40, 40, 40, 40, NaN]) };
  series.take({ rows: 5, steps: [[6, 5, 1]], tokens: [[3072, 5, 512]], attempts: [[0, 2]], resets: [[0, 6]], columns, cursor: {} });
  assert.deepEqual([series.n, series.share("docs"), series.share("code")], [10, 150 / 360, 210 / 360]);
});

test("A minus B compares source with source", () => {
  const state = many([mixed("a", { docs: Array(10).fill(5), code: Array(10).fill(3) }), mixed("b", { code: Array(10).fill(1), docs: Array(10).fill(4) })], { minus: "b" });
  assert.deepEqual(curves(state, "sources").map(({ source, raw }) => [source, raw[3]]), [["docs", 1], ["code", 2]]);
});

test("only a mixture's validation as a whole says that held-out tokens weigh its sources, and shares its curve", () => {
  const alone = validated("a", falling(60), "gpt2", [[60, 3.6, 1.8]]), mixed = validated("m", falling(60), "gpt2", [[60, 3.1, 1.6]]);
  mixed.sources = [{ name: "books", promised: 0.7 }, { name: "web", promised: 0.3 }];
  mixed.validation()[0].sources = { books: [3, 1.5], web: [3.3, 1.7] };
  const key = (id, ...shown) => { const one = chart(shown); one.options = withSources; return validationKey(one, id); };
  assert.equal(key("loss", alone), "● validation");
  for (const shown of [[mixed], [alone, mixed]]) assert.equal(key("loss", ...shown), "● validation, weighted by held-out tokens, not by share");
  assert.equal(key("sources", mixed), "● validation", "there each source stands for itself");
  assert.equal(key("loss", run("early", falling(60))), "");
});

test("between two steps there is no tick", () => {
  const at = (range, view = {}) => stepTicks({ view: { x: "step", logx: false, ...view }, range }).nticks;
  assert.deepEqual([at([1, 5]), at([1, 1.5]), at([3.2, 9.9]), at([0, 500])], [4, 1, 6, undefined]);
  assert.deepEqual([at([1, 5], { x: "tokens" }), at([1, 5], { logx: true })], [undefined, undefined]);
});

test("a saved picture says which source has which colour and what the signs of the loss mean", () => {
  const state = { ...many([mixed("m", { docs: falling(10), code: falling(10) })]), options: MIXED };
  assert.deepEqual(keyOf(state, "sources", "● validation", 80).map(([words]) => words), ["■ docs", "■ code", "● validation"]);
  assert.equal(new Set(keyOf(state, "sources", "", 80).map(([, colour]) => colour)).size, 2);
  assert.deepEqual(keyOf(state, "loss", "|  saved", 80), [["|  saved", state.theme.muted]]);
  assert.deepEqual(keyOf(state, "loss", "", 80), []);
  assert.deepEqual(keyOf(state, "sources", "● validation", 17).map(([words]) => words), ["■ docs", "■ code"], "it would lie over the next panel's title");
});
