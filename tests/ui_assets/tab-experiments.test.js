// The lists of a form: what the server told last, once; what a person chose, or a menu asked for, stays.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../ui_assets/tab-experiments.js", import.meta.url), "utf8");

class Option {
  constructor(text, value) { Object.assign(this, { text, value, dataset: {} }); }
}

// A list as the page has it: a value that is no option selects none.
class List {
  constructor(field, options, usual) {
    Object.assign(this, { options, dataset: { field, usual }, selectedIndex: 0 });
  }
  get value() { return this.options[this.selectedIndex]?.value ?? ""; }
  set value(value) { this.selectedIndex = this.options.findIndex((option) => option.value === value); }
  replaceChildren(...options) { this.options = options; this.selectedIndex = 0; }
}

function page() {
  const base = new List("base", [], ""), variant = new List("variant", [new Option("the same", "")], "");
  const lists = [base, variant];
  const form = { dataset: { kind: "judge" }, querySelectorAll: () => lists, querySelector: () => base, getBoundingClientRect: () => ({ top: 0 }) };
  const root = { addEventListener() {}, querySelectorAll: () => lists, querySelector: () => form };
  const window = { innerHeight: 900, workbench: { live: { ask() {} }, params: () => ({}), url() {}, openTab() {} } };
  vm.runInNewContext(SOURCE, { window, document: { addEventListener() {} }, Option });
  const { experiments } = window.workbench;
  experiments.mount(root);
  const tell = (runs, usual) => {
    const known = runs.map((run) => [run, `run:${run}`]);
    experiments.receive({ choices: { base: known, variant: known, usual } });
  };
  return { base, variant, tell, go: experiments.go, ask: experiments.ask };
}

const texts = (list) => list.options.map((option) => option.text);

test("a run that comes or goes is one line more or fewer, not the whole list again", () => {
  const { base, variant, tell } = page();
  tell(["a"], "run:a");
  tell(["a", "b"], "run:a");
  assert.deepEqual([texts(base), texts(variant)], [["a", "b"], ["the same", "a", "b"]]);
  tell(["b"], "run:b");
  assert.deepEqual([texts(base), texts(variant)], [["b"], ["the same", "b"]]);
});

test("what is chosen stays while the lists change", () => {
  const { base, variant, tell, go } = page();
  tell(["a", "b"], "run:a");
  variant.value = "run:b";
  variant.dataset.touched = "yes";
  go("judge b");
  assert.equal(base.value, "run:b");
  tell(["a", "b", "c"], "run:a");
  assert.deepEqual([base.value, variant.value], ["run:b", "run:b"]);
});

test("an experiment that is chosen while another one is deleted stays chosen", () => {
  const { go, ask } = page();
  go("name other");
  assert.equal(ask({ shown: "1", name: "", gone: "first" }).name, "other");
  assert.equal(ask({ shown: "2", name: "", gone: "other" }).name, "");
});
