// The table of runs as values: order, groups, what does not compare, the address.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const window = { workbench: {} };
for (const name of ["tab-monitor-family", "tab-monitor-rows"]) vm.runInNewContext(readFileSync(new URL(`../../ui_assets/${name}.js`, import.meta.url), "utf8"), { window });
const table = window.workbench.runRows;

const run = (name, more = {}) => ({ name, state: "finished", note: "", group: "", tokenizer: "gpt2", tags: [], measured: "text", val: null, ...more });
const none = table.settings({});
const view = (given = {}) => table.fromAddress(given);
const names = (lines) => Array.from(lines, (line) => (line.kind === "group" ? `[${line.group}]` : line.row.name)).join(" ");
const json = (value) => JSON.parse(JSON.stringify(value));

test("what is missing comes last in both directions, and equal ones by name with numbers as numbers", () => {
  const rows = [run("b", { val: 3 }), run("none"), run("r10", { val: 2 }), run("r9", { val: 2 }), run("a", { val: 10 })];
  assert.equal(names(table.lines(rows, view({ sort: "val" }), none)), "r9 r10 b a none");
  assert.equal(names(table.lines(rows, view({ sort: "-val" }), none)), "a b r9 r10 none");
});

test("settings sort as numbers where they are, else as words", () => {
  const known = table.settings({ names: ["x", "y", "z"], same: { "train.steps": 5 }, differ: { "optimizer.lr": [0.1, 0.02, null], "data.source": ["b", "a", "c"] } });
  const rows = ["x", "y", "z"].map((name) => run(name));
  assert.equal(names(table.lines(rows, view({ sort: "optimizer.lr" }), known)), "y x z");
  assert.equal(names(table.lines(rows, view({ sort: "-data.source" }), known)), "z x y");
  assert.equal(known.of("x", "train.steps"), 5);
  assert.deepEqual(json(known.differing(["x", "y"])), ["optimizer.lr", "data.source"]);
  assert.deepEqual(json(known.differing(["x"])), []);
});

test("two or more runs of a group are one line until it is opened, at the place of its first run", () => {
  const rows = [run("solo", { val: 2 }), run("e.a.1", { val: 3, group: "e" }), run("e.a.2", { val: 1, group: "e" }), run("one", { val: 4, group: "alone" })];
  assert.equal(names(table.lines(rows, view({ sort: "val" }), none)), "[e] solo one");
  assert.equal(names(table.lines(rows, view({ sort: "val", open: "e" }), none)), "[e] e.a.2 e.a.1 solo one");
  assert.equal(names(table.lines(rows, view({ sort: "val", flat: "1" }), none)), "e.a.2 solo e.a.1 one");
  const [group] = table.lines(rows, view({ sort: "val" }), none);
  assert.deepEqual(json(table.together(group.members, table.column("val"), none)), { text: "1.0000", value: 1, title: "the best of them" });
});

test("losses of several tokenizers, and validations on several texts, are never mixed without a word", () => {
  const rows = [run("a", { val: 3, loss: 3 }), run("b", { val: 2, loss: 2, tokenizer: "own.json", measured: "other" }), run("c", { val: 1, loss: 1 })];
  assert.match(table.warning(rows, "val").text, /2 tokenizers, so validation loss per token does not compare/);
  assert.equal(table.warning(rows, "-loss").offer, "bpb");
  assert.match(table.warning(rows, "bpb").text, /^1 run was validated on another text than the others, marked ≠/);
  assert.equal(table.warning(rows, "started"), null);
  assert.equal(table.warning([rows[0], rows[2]], "val"), null);
  assert.equal(table.usual(rows), "text");
});

test("search, state and tag filter, and archived runs are hidden until asked for", () => {
  const rows = [run("a", { tags: ["keep"] }), run("b", { state: "failed", note: "too hot" }), run("c", { archived: true }), run("d", { diverged: true })];
  const shown = (given) => Array.from(table.filtered(rows, view(given)), (row) => row.name).join("");
  assert.equal(shown({}), "abd");
  assert.equal(shown({ archived: "1" }), "abcd");
  assert.deepEqual(["failed", "diverged", "active"].map((state) => shown({ state })), ["b", "d", ""]);
  assert.equal(shown({ tag: "keep" }), "a");
  assert.equal(shown({ find: "HOT fail" }), "b");
});

test("columns: the usual ones with settings that differ, or those of the address; nonsense is left out", () => {
  const differ = ["log.trace", "data.seed", "optimizer.lr"];
  const keys = (given) => Array.from(table.columnsOf(view(given), differ, {}), (each) => each.key);
  assert.deepEqual(keys({}).slice(0, 4), ["state", "share", "loss", "val"]);
  assert.deepEqual(keys({}).slice(5, 8), ["optimizer.lr", "data.seed", "rate"]);
  assert.deepEqual(keys({ cols: "bpb,optimizer.lr,<b>,nope,bpb" }), ["bpb", "optimizer.lr"]);
});

test("the view survives the address", () => {
  const asked = { cols: "val,data.source", sort: "-val", find: "a b", state: "failed", tag: "x", archived: "1", flat: "1", open: "e,study-1" };
  assert.deepEqual(json(table.toAddress(view(asked))), asked);
  assert.ok(Object.values(table.toAddress(view({ sort: "<b>" }))).every((value) => value === null));
});

test("a first click puts the good ones first, a second one the others", () => {
  for (const [key, first, second] of [["val", "val", "-val"], ["rate", "-rate", "rate"], ["name", "name", "-name"], ["started", "-started", "started"]]) {
    const column = table.column(key) || { key };
    assert.deepEqual([table.sortedBy(column, ""), table.sortedBy(column, first)], [first, second]);
  }
});

test("figures are short", () => {
  assert.deepEqual([table.short(124439808), table.bytes(77658200), table.span(3725), table.span(81), table.span(0.4)], ["124M", "77.7 MB", "1 h 2 min", "1 min 21 s", "0 s"]);
});

test("the text comes first of the settings that differ, and what of a mixture it does not say comes last", () => {
  assert.deepEqual(json(table.proposed(["data.mix", "optimizer.lr", "data.seed", "data.source"])), ["data.source", "optimizer.lr", "data.mix", "data.seed"]);
});

test("no digit is shown that the server did not tell", () => {
  const loss = table.column("val").text;
  assert.deepEqual([3.92061, 288.49, 289.419, 12345.6, 0.0421, 0, 1186].map(loss), ["3.9206", "288.490", "289.419", "12345.6", "0.0421", "0.0000", "1186.00"]);
});

test("before the server has said which runs there are, the table does not say that there is none", () => {
  assert.match(table.emptyWords(0, false), /^Looking/);
  assert.match(table.emptyWords(0, true), /^No run lies/);
  assert.match(table.emptyWords(3, true), /^No run matches/);
});
