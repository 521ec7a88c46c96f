// One question at a time; of what is done meanwhile the last is asked about, with what the fields held as it was done.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../ui_assets/turns.js", import.meta.url), "utf8");

function page() {
  const timers = [], asked = [], window = { workbench: {} };
  vm.runInNewContext(SOURCE, { window, setTimeout: (run, ms) => timers.push({ run, ms }), clearTimeout: (id) => { if (id) timers[id - 1].run = () => {}; } });
  const { turns } = window.workbench;
  const pass = (most) => { for (const one of timers.filter(({ ms }) => ms <= most)) { const { run } = one; one.run = () => {}; run(); } };
  turns.mount({ trigger: (event, { what }) => asked.push([event, what, turns.values(event.replace("_due", ""))]) });
  return { turns, asked, pass };
}

test("of what comes while another is answered only the last is asked about, as it was when it came", () => {
  const { turns, asked, pass } = page();
  turns.due("step", "show", [3]);
  pass(20);
  turns.due("step", "after", [3]);
  turns.due("step", "show", [7]);
  pass(20);
  assert.deepEqual(asked, [["step_due", "show", [3]]]);
  assert.equal(turns.doing("step"), "show");
  turns.done("step");
  pass(20);
  turns.done("step");
  pass(20);
  assert.deepEqual(asked.slice(1), [["step_due", "show", [7]]]);
  assert.equal(turns.doing("step"), "");
});

test("a form is asked about anew after a while without an answer, an act waits for its own", () => {
  const { turns, asked, pass } = page();
  for (const due of [() => turns.due("form"), () => turns.due("source", "open", [])]) {
    due();
    pass(20);
    due();
    pass(60000);
    pass(20);
  }
  assert.deepEqual(asked.map(([event]) => event), ["form_due", "form_due", "source_due"]);
});
