// The form over a reload: each window its own, a new one what was edited last in any, and a reset forgets.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../ui_assets/tab-train.js", import.meta.url), "utf8");

function storage() {
  const held = new Map();
  return { getItem: (key) => held.get(key) ?? null, setItem: (key, text) => held.set(key, text), removeItem: (key) => held.delete(key) };
}

// A window with a session of its own and a storage that it shares with others; `edit` is a person's change in the form.
function open(shared, own = storage()) {
  const heard = {};
  const tab = { contains: () => true };
  const document = { getElementById: () => tab, addEventListener: (kind, work) => { (heard[kind] ||= []).push(work); } };
  const window = { workbench: {}, sessionStorage: own, localStorage: shared };
  vm.runInNewContext(SOURCE, { window, document, MutationObserver: class {}, setTimeout, navigator: {} });
  const edit = () => heard.change.forEach((work) => work({ target: { id: "field-train-steps" } }));
  return { ...window.workbench.train, edit, own };
}

test("a window finds its own form again, a new one what was edited last", () => {
  const shared = storage();
  const one = open(shared), two = open(shared);
  for (const window of [one, two]) assert.equal(window.kept("/runs"), "");
  one.edit();
  one.keep({ steps: 1 });
  two.edit();
  two.keep({ steps: 2 });
  assert.equal(open(shared, one.own).kept("/runs"), '{"steps":1}');
  assert.equal(open(shared).kept("/runs"), '{"steps":2}');
  assert.equal(open(shared).kept("/other"), "", "another folder's form is another one");
});

test("what a link filled is this window's alone until somebody edits it", () => {
  const shared = storage();
  const one = open(shared);
  one.kept("/runs");
  one.keep({ steps: 3 });
  assert.equal(open(shared).kept("/runs"), "");
  assert.equal(open(shared, one.own).kept("/runs"), '{"steps":3}');
});

test("a form as it opens is forgotten, and wins over what other windows have", () => {
  const shared = storage();
  const one = open(shared), two = open(shared);
  for (const window of [one, two]) { window.kept("/runs"); window.edit(); }
  two.keep({ steps: 2 });
  one.keep(null);
  assert.equal(open(shared, one.own).kept("/runs"), "");
  assert.equal(open(shared).kept("/runs"), "");
});

test("nothing is kept before it is known under what, and without any storage the page still works", () => {
  const own = storage(), early = open(storage(), own);
  early.keep({ steps: 1 });
  assert.equal(early.kept("/runs"), "");
  const closed = { get getItem() { throw new Error("denied"); } };
  const none = open(closed, closed);
  assert.equal(none.kept("/runs"), "");
  none.keep({ steps: 1 });
});

test("the next name takes the place of the one it follows, not of what was typed meanwhile", () => {
  const stays = { __type__: "update" }, { begun } = open(storage());
  const told = JSON.stringify({ named: ["a", "a-1"], branch: "old@4" });
  const plain = (found) => JSON.parse(JSON.stringify(found));
  assert.deepEqual(plain(begun(told, " a", "old@4")), ["a-1", ""]);
  assert.deepEqual(plain(begun(told, "mine", "old@8")), [stays, stays]);
  for (const other of ["", "12345678", "0a1b", null]) assert.deepEqual(plain(begun(other, "a", "")), [stays, stays]);
});
