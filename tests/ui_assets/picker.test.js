// What the picker's script decides by itself: which files it sends, and what several of them are called together.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const source = readFileSync(new URL("../../ui_assets/picker.js", import.meta.url), "utf8");
const window = { workbench: { elements: {} } };
vm.runInNewContext(source, { window, document: { addEventListener() {} } });
const { refusal, together, size } = window.workbench.picker;

const OPTIONS = { uploads: true, mostFiles: 3, mostBytes: 1000, most: "1 kB", endings: [".txt", ".jsonl.gz"], advice: "save it as text" };
const file = (name, bytes = 10) => ({ name, size: bytes });

test("files of other kinds, too many and too large ones are refused with what is allowed", () => {
  assert.equal(refusal([file("a.TXT"), file("b.jsonl.gz")], OPTIONS), "");
  assert.match(refusal([file("a.txt"), file("b.docx")], OPTIONS), /^b\.docx cannot be used here\. Allowed: \.txt, \.jsonl\.gz\. Otherwise save it as text\.$/);
  assert.match(refusal([1, 2, 3, 4].map((n) => file(`${n}.txt`)), OPTIONS), /^4 files are too many/);
  assert.match(refusal([file("a.txt", 600), file("b.txt", 600)], OPTIONS), /^1\.2 kB is too much to upload; at most 1 kB/);
  assert.match(refusal([file("a.txt")], { ...OPTIONS, uploads: false }), /read only/);
});

test("several files together are called like their folder, or as their names begin", () => {
  assert.equal(together([file("a.txt")], "books"), "books");
  assert.equal(together([file("chapter-01.txt"), file("chapter-02.txt")], ""), "chapter");
  assert.equal(together([file("x.txt"), file("y.txt")], ""), "upload");
});

test("bytes are told in decimal units of three digits", () => {
  assert.deepEqual([0, 999, 1000, 123456, 5e9].map(size), ["0 B", "999 B", "1 kB", "123 kB", "5 GB"]);
});
