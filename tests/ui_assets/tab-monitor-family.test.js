// Branches stand below the runs they came from.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const window = { workbench: {} };
for (const name of ["tab-monitor-family", "tab-monitor-rows"]) vm.runInNewContext(readFileSync(new URL(`../../ui_assets/${name}.js`, import.meta.url), "utf8"), { window });
const { families, runRows: table } = window.workbench;

const run = (name, parent = "", more = {}) => ({ name, parent, state: "finished", note: "", group: "", tokenizer: "", tags: [], ...more });
const told = (lines) => Array.from(lines, ({ row, depth }) => `${"-".repeat(depth)}${row.name}`).join(" ");

test("a branch stands below its parent, a branch of it below that, and the family at the place of its first member", () => {
  const rows = [run("b2", "b1"), run("other"), run("b1", "a"), run("b3", "a"), run("a")];
  assert.equal(told(families.tree(rows)), "a -b1 --b2 -b3 other");
});

test("a branch whose parent is not here stands by itself, and a circle hides nobody", () => {
  assert.equal(told(families.tree([run("b", "gone"), run("a")])), "b a");
  assert.equal(told(families.tree([run("x", "y"), run("y", "x"), run("z", "z")])).split(" ").length, 3);
});

test("in the table a family is a tree unless the list is flat, and a group stays a group", () => {
  const none = table.settings({}), view = (given) => table.fromAddress({ sort: "val", ...given });
  const rows = [run("a", "", { val: 3 }), run("b", "a", { val: 1 }), run("c", "", { val: 2 })];
  const lines = (given, all = rows) => Array.from(table.lines(all, view(given), none), (line) => (line.kind === "group" ? `[${line.group}]` : `${"-".repeat(line.depth || 0)}${line.row.name}`)).join(" ");
  assert.equal(lines({}), "a -b c");
  assert.equal(lines({ flat: "1" }), "b c a");
  const study = [run("s.x.1", "", { val: 4, group: "s" }), run("s.y.1", "s.x.1", { val: 5, group: "s" })];
  assert.equal(lines({}, [...rows, ...study]), "a -b c [s]");
});
