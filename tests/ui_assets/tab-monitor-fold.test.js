// The arms of an experiment are one line of Monitor's list until it is opened.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

globalThis.window = { workbench: {} };
(0, eval)(readFileSync(new URL("../../ui_assets/tab-monitor-fold.js", import.meta.url), "utf-8"));
const { lines } = window.workbench.folds;

const NAMES = ["e.a.1", "tiny", "e.b.1", "other.a.1", "one.a.1"];
const groupOf = (name) => (name.includes(".") ? name.split(".")[0] : "");
const told = (found) => found.map((line) => line.name || `${line.open ? "-" : "+"}${line.group}(${line.names.length})`);

test("the arms of an experiment are one line in the place of the first", () => {
  assert.deepEqual(told(lines(NAMES, groupOf, ["e", "one"], new Set(), [])), ["+e(2)", "tiny", "other.a.1", "one.a.1"]);
});

test("an opened one lists its arms below it", () => {
  assert.deepEqual(told(lines(NAMES, groupOf, ["e"], new Set(["e"]), [])), ["-e(2)", "e.a.1", "e.b.1", "tiny", "other.a.1", "one.a.1"]);
});

test("an arm that is looked at is shown though its experiment is folded", () => {
  assert.deepEqual(told(lines(NAMES, groupOf, ["e"], new Set(), ["e.b.1"])), ["+e(2)", "e.b.1", "tiny", "other.a.1", "one.a.1"]);
});

test("without experiments every run is a line", () => {
  assert.deepEqual(told(lines(NAMES, groupOf, [], new Set(), [])), NAMES);
});
