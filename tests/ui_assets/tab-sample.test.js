// Models that are offered as the tab opens are taken where nobody chose another one meanwhile.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../ui_assets/tab-sample.js", import.meta.url), "utf8");
const window = { workbench: {} };
vm.runInNewContext(SOURCE, { window, document: { addEventListener() {} } });
const { offered } = window.workbench.sample;
const values = (...given) => JSON.parse(JSON.stringify(offered(...given))).map(({ __type__, ...update }) => update);

test("a model that was chosen since the server was asked stays", () => {
  const offer = JSON.stringify({ sets: JSON.stringify({ was: { a: null, b: "old" }, now: { a: "run", b: null } }) });
  assert.deepEqual(values(offer, "", "old"), [{ value: "run" }, { value: null }]);
  assert.deepEqual(values(offer, "mine", "mine"), [{}, {}]);
  for (const none of ["", "{", "{}", JSON.stringify({ sets: JSON.stringify({ was: {}, now: {} }) })]) assert.deepEqual(values(none, "a", "b"), [{}, {}]);
});
