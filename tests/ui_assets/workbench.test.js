// What all tabs share in the browser, in a window that is only as much as it needs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const source = readFileSync(new URL("../../ui_assets/workbench.js", import.meta.url), "utf8");

function loaded() {
  const frames = [], timeouts = [];
  const document = { addEventListener() {}, body: null };
  const location = { href: "http://here/?tab=monitor&runs=a" }, history = { replaceState(state, title, { href }) { location.href = href; } };
  const window = { requestAnimationFrame: (work) => frames.push(work), addEventListener() {}, location, history };
  vm.runInNewContext(source, { window, document, setTimeout: (work, ms) => timeouts.push(ms), MutationObserver: class {}, performance, URL });
  return { window, frames, timeouts };
}

test("Gradio's counters of a wait come once a second, every other frame at once", () => {
  const { window, frames, timeouts } = loaded();
  let Pe, de = 0, W = true;
  const F = (signal, value) => value, w = (signal) => signal, ze = () => {};
  window.requestAnimationFrame(()=>{F(Pe,(performance.now()-w(de))/1e3),W&&ze()}); // as Gradio's bundle has it
  assert.deepEqual([frames.length, timeouts], [0, [1000]]);
  window.requestAnimationFrame(() => draw(performance.now()));
  window.requestAnimationFrame(function longer() { const text = "x".repeat(3); return (performance.now() - text.length) / 1e3 + text.length * 2 + 100000; });
  assert.equal(frames.length, 2);
});

test("what an answer to a tab that was left writes into the address is not written", () => {
  const { window } = loaded(), { url, params, linkFollowed } = window.workbench;
  linkFollowed();
  url({ tab: "sample", prompt: "late" });
  assert.deepEqual({ ...params() }, { tab: "monitor", runs: "a" });
  url({ tab: "sample" });
  url({ tab: "sample", prompt: "here", runs: null });
  assert.deepEqual({ ...params() }, { tab: "sample", prompt: "here" });
});
