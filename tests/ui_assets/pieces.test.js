// How long ago something was, in words.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const source = readFileSync(new URL("../../ui_assets/pieces.js", import.meta.url), "utf8");
const window = { workbench: {}, addEventListener() {} };
vm.runInNewContext(source, { window, document: { addEventListener() {} } });
const { ago, exact } = window.workbench.times;

test("a time is told by its distance for a day, then by its date", () => {
  const now = new Date(2026, 10, 30, 12, 0).getTime() / 1000;
  assert.equal(ago(now - 59, now), "just now");
  assert.equal(ago(now + 30, now), "just now"); // clocks differ
  assert.equal(ago(now - 60, now), "1 min ago");
  assert.equal(ago(now - 3599, now), "59 min ago");
  assert.equal(ago(now - 3 * 3600, now), "3 h ago");
  assert.equal(ago(now - 24 * 3600, now), "29 Nov, 12:00");
  assert.equal(ago(now - 366 * 24 * 3600, now), "29 Nov 2025, 12:00");
  assert.equal(ago(now + 3600, now), "30 Nov, 13:00");
  assert.equal(exact(new Date(2026, 0, 2, 3, 4)), "2026-01-02 03:04");
});
