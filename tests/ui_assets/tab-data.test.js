// Which source an act is about, and what a link asks to be shown.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const read = (name) => readFileSync(new URL(`../../ui_assets/${name}`, import.meta.url), "utf8");

function page() {
  const asked = [], window = { workbench: { url() {} } };
  const context = vm.createContext({ window, setTimeout: (run) => run(), clearTimeout() {} });
  for (const name of ["turns.js", "tab-data.js"]) vm.runInContext(read(name), context);
  const { data, turns } = window.workbench;
  turns.mount({ trigger: (event, { what }) => asked.push([event, what, ...turns.values(event.replace("_due", ""))]) });
  const answer = (name) => { turns.done(name); data.shown(); };
  return { data, asked, answer };
}

const fields = (source, document) => [source, "text", "gpt2", 1, 0, 0, 1, document];

test("files and documents are those of the source that is open, whatever its field says by now", () => {
  const { data, asked, answer } = page();
  data.act("source", "open", fields("one", null));
  data.act("source", "document", fields("one", 2)); // of what was open before: it is about to go
  answer("source");
  data.act("source", "document", fields("typed", 3));
  answer("source");
  assert.deepEqual(asked.map(([, what, source]) => [what, source]), [["open", "one"], ["document", "one"]]);
  assert.deepEqual([data.source("typed"), asked[1].at(-1)], ["one", 3]);
  data.act("source", "open", fields("typed", null));
  answer("source");
  assert.equal(data.source("other"), "typed");
});

test("a link shows its source, its step or its order, and waits for a click if it is another site's", () => {
  const held = { source: ["s"], order: ["o"], step: ["t"] };
  for (const [request, expected] of [
    [{ source: "a" }, ["source_due", "open", "s"]], [{ source: "a", link: true }, ["source_due", "linked", "s"]],
    [{ run: "a", step: "3", runs: "a" }, ["step_due", "show", "t"]],
    [{ runs: "a" }, ["order_due", "show", "o"]], [{ runs: "a", link: true }, ["order_due", "linked", "o"]],
  ]) {
    const { data, asked } = page();
    data.asked(JSON.stringify(request), held);
    assert.deepEqual(asked, [expected]);
  }
  const { data, asked } = page();
  data.asked("{", held);
  assert.deepEqual(asked, []);
});
