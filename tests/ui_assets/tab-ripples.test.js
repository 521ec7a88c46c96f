// What is told of a step goes with its run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../ui_assets/tab-ripples.js", import.meta.url), "utf8");

test("an answer about a step of the run before is not told once another run is shown", async () => {
  const heard = {}, box = { value: "", addEventListener: (kind, work) => { heard[kind] = work; } };
  const line = { textContent: "Hover" }, open = { hidden: true, addEventListener() {} }, answers = [];
  const element = { querySelector: (name) => ({ input: box, p: line, button: open })[name] };
  const chart = { chart: { view: { runs: ["one"] } } };
  const document = { querySelector: (name) => (name.includes("wb-chart") ? chart : null), addEventListener() {} };
  const window = { location: { href: "http://here/" }, workbench: {}, setTimeout: (work) => work(), clearTimeout() {} };
  vm.runInNewContext(SOURCE, { window, document, URL, AbortController });
  const { ripples } = window.workbench;
  ripples.mountStep(element, { ripples_step: () => new Promise((answer) => answers.push(answer)) }, () => {});
  const ask = (step) => { box.value = step; heard.input(); };
  ask("3");
  answers[0]("Step 3: file a");
  await new Promise(setImmediate);
  assert.deepEqual([line.textContent, open.hidden], ["Step 3: file a", false]);
  ask("4");
  ripples.receive({ of: ["two"] }, {});
  answers[1]("Step 4: file a");
  await new Promise(setImmediate);
  assert.deepEqual([box.value, line.textContent, open.hidden], ["", "Hover", true]);
});
