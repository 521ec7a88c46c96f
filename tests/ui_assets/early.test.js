// The points of a link's runs, and what draws them: asked for before the chart is there, handed over once, and never in place of an answer.
import assert from "node:assert/strict";
import { test } from "node:test";

const asked = [];
let params = {}, reply = async () => ({ ok: true, json: async () => [{ run: "a" }] });
globalThis.window = globalThis;
globalThis.document = { baseURI: "http://host/under/" };
globalThis.workbench = { params: () => params };
globalThis.fetch = (url, { body }) => { asked.push([String(url), JSON.parse(body)]); return reply(); };
await import("../../ui_assets/early.js");
const { early } = globalThis.workbench;
const COMPONENTS = [{ id: 3, props: {} }, { id: 7, props: { elem_id: "wb-monitor-chart" } }];

function begin(given, components = COMPONENTS, script = "data:text/javascript,") {
  asked.length = 0;
  params = given;
  early.begin(components, script);
  return asked.map(([, { data: { wants: [{ run }] } }]) => run);
}

test("the chart's script comes early where a link names runs, and only there", async () => {
  const marking = (name) => `data:text/javascript,globalThis.came = [...(globalThis.came || []), "${name}"]`;
  begin({ tab: "train", runs: "a" }, COMPONENTS, marking("train"));
  begin({ tab: "monitor" }, COMPONENTS, marking("no run"));
  begin({ tab: "monitor", runs: "a" }, COMPONENTS, marking("a run"));
  await import(marking("a run"));
  assert.deepEqual(globalThis.came, ["a run"]);
});

test("each run of a link is asked for once, as the chart would", async () => {
  assert.deepEqual(begin({ tab: "monitor", runs: "a, b,a,../x,-y" }), ["a", "b"]);
  assert.deepEqual(asked[0], ["http://host/under/gradio_api/component_server/", { data: { wants: [{ run: "a", cursor: null }],
    columns: ["loss"] }, component_id: 7, fn_name: "chart_points", session_hash: "early" }]);
  assert.deepEqual(await early.points("a", ["loss"]), [{ run: "a" }]);
  assert.equal(await early.points("a", ["loss"]), null);
  assert.equal(await early.points("b", ["loss", "step_ms"]), null);
});

test("nothing is asked for another tab, another axis, without runs or without a chart", () => {
  assert.deepEqual(begin({ tab: "train", runs: "a" }), []);
  assert.deepEqual(begin({ runs: "a", x: "time" }), []);
  assert.deepEqual(begin({}), []);
  assert.deepEqual(begin({ runs: "a" }, []), []);
  assert.equal(begin({ runs: Array.from({ length: 20 }, (_, i) => `r${i}`).join() }).length, 8);
});

test("what fails is left to the chart", async () => {
  for (const failing of [async () => ({ ok: false }), async () => ({ ok: true, json: async () => [] }), async () => { throw new Error("away"); }]) {
    reply = failing;
    begin({ runs: "a" });
    assert.equal(await early.points("a", ["loss"]), null);
  }
});
