// The arithmetic of a mixture's bar, and the text that an editor's sources make.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

globalThis.window = { workbench: {} };
(0, eval)(readFileSync(new URL("../../ui_assets/tab-train-mix.js", import.meta.url), "utf-8"));
const { weightsOf, shares, moved, keyed, range, another, percent, toml, nameOf } = window.workbench.shares;

const sum = (weights) => weights.reduce((a, b) => a + b, 0);

test("a separator moves the two beside it, and what all are together stays", () => {
  assert.deepEqual(moved([0.5, 0.3, 0.2], 0, 0.1), [0.6, 0.2, 0.2]);
  assert.deepEqual(moved([0.5, 0.3, 0.2], 1, -0.1), [0.5, 0.2, 0.3]);
  assert.deepEqual(moved([7, 3], 0, -0.2), [5, 5]);
  for (const by of [-3, -0.123, 0.004, 0.271, 9]) {
    for (const at of [0, 1]) assert.ok(Math.abs(sum(moved([0.31, 1.7, 12], at, by)) - 14.01) < 1e-9);
  }
});

test("a drag ends at whole percents, and one that goes nowhere changes nothing", () => {
  assert.deepEqual(shares(moved([1, 1, 1], 0, 0.111)).map((share) => Number(share.toFixed(4))), [0.44, 0.2267, 0.3333]);
  assert.deepEqual(moved([1 / 3, 2 / 3], 0, 0), [1 / 3, 2 / 3]);
});

test("each source keeps a hundredth of the whole, or what it has if that is less", () => {
  assert.deepEqual(moved([0.5, 0.5], 0, 5), [0.99, 0.01]);
  assert.deepEqual(moved([0.5, 0.5], 0, -5), [0.01, 0.99]);
  const [left, right, rest] = moved([0.005, 0.005, 0.99], 0, -1);
  assert.deepEqual([left, right, rest], [0.005, 0.005, 0.99]);
});

test("keys: arrows a percent, pages ten, the ends as far as it goes, no other key anything", () => {
  assert.deepEqual(keyed([0.5, 0.5], 0, "ArrowRight"), [0.51, 0.49]);
  assert.deepEqual(keyed([0.5, 0.5], 0, "ArrowDown"), [0.49, 0.51]);
  assert.deepEqual(keyed([0.5, 0.5], 0, "PageUp"), [0.6, 0.4]);
  assert.deepEqual(keyed([0.5, 0.5], 0, "Home"), [0.01, 0.99]);
  assert.deepEqual(keyed([0.5, 0.25, 0.25], 0, "End"), [0.74, 0.01, 0.25]);
  assert.equal(keyed([0.5, 0.5], 0, "Tab"), null);
});

test("a separator's value lies between its ends", () => {
  assert.deepEqual(range([0.5, 0.3, 0.2], 1), [1, 49, 30]);
});

test("weights are numbers above 0; one more source has the mean of the others", () => {
  assert.deepEqual(weightsOf(["0.7", " 3 "]), [0.7, 3]);
  for (const bad of ["", "x", "0", "-1", "1e10", "Infinity", "0x10"]) assert.equal(weightsOf(["1", bad]), null);
  assert.equal(another([0.7, 0.3]), 0.5);
  assert.equal(another(null), 1);
  assert.equal(percent(1 / 3), "33.3 %");
});

test("the text is TOML: what is unset is not there, numbers are floats as the engine writes them", () => {
  const sources = [{ name: "a", source: 'x"\\\x7f', weight: "2", max_epochs: "4", text_column: "" }, { name: "b", source: "", weight: "much", language: "en" }];
  assert.equal(toml(sources), '[{name = "a", source = "x\\"\\\\\\u007f", weight = 2.0, max_epochs = 4.0}, {name = "b", source = "", weight = "much", language = "en"}]');
});

test("a source is called after its file, folder or set, and no two alike", () => {
  assert.equal(nameOf("/data/my code.jsonl.gz"), "my-code");
  assert.equal(nameOf("HuggingFaceFW/fineweb-edu:sample-10BT@main"), "fineweb-edu");
  assert.equal(nameOf("/data/code/", ["code"]), "code-2");
  assert.equal(nameOf("", ["a"]), "source-2");
  assert.match(nameOf(`/${"x".repeat(60)}`, ["x".repeat(28)]), /^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/);
});
