// How a page waits for news: held while it is alone, in short while other windows of the browser are there too.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const source = readFileSync(new URL("../../ui_assets/changes.js", import.meta.url), "utf8");
const turn = () => new Promise((done) => setImmediate(done));

// A browser whose clock moves by hand, and windows in it that ask a server.
function browser() {
  const world = { now: 0, timers: [], windows: [], stamp: "a" };

  world.open = (readyState = "complete") => {
    const page = new EventTarget(), own = { asked: [], held: 0, told: 0, hidden: false, channels: [] };
    Object.defineProperty(page, "hidden", { get: () => own.hidden });
    Object.assign(page, { readyState, baseURI: "http://here/" });
    page.addEventListener("wb-changed", () => { own.told += 1; });
    const fetch = (address, { signal }) => new Promise((resolve, reject) => {
      const since = address.searchParams.get("since");
      own.asked.push(since);
      const answer = () => resolve({ ok: true, json: async () => ({ stamp: world.stamp }) });
      if (since !== world.stamp) { answer(); return; }
      own.held += 1;
      signal.addEventListener("abort", () => { own.held -= 1; reject(new Error("aborted")); });
      own.answer = () => { own.held -= 1; answer(); };
    });
    class Channel extends EventTarget {
      constructor() { super(); own.channels.push(this); }
      postMessage(data) {
        for (const other of world.windows) if (other !== own) for (const channel of other.channels) {
          queueMicrotask(() => channel.dispatchEvent(Object.assign(new Event("message"), { data })));
        }
      }
    }
    const window = Object.assign(new EventTarget(), { workbench: {} });
    world.windows.push(own);
    vm.runInNewContext(source, {
      window, document: page, fetch, URL, URLSearchParams, AbortController, CustomEvent, BroadcastChannel: Channel,
      performance: { now: () => world.now },
      setTimeout: (run, ms = 0) => { world.timers.push({ at: world.now + ms, run }); return world.timers.at(-1); },
      clearTimeout: (timer) => { world.timers = world.timers.filter((one) => one !== timer); },
    });
    own.loaded = () => { page.readyState = "complete"; window.dispatchEvent(new Event("load")); };
    own.close = () => { window.dispatchEvent(new Event("pagehide")); world.windows.splice(world.windows.indexOf(own), 1); };
    own.hide = (hidden) => { own.hidden = hidden; page.dispatchEvent(new Event("visibilitychange")); };
    return own;
  };
  world.pass = async (ms) => {
    const ends = world.now + ms;
    await turn();
    for (;;) {
      const next = world.timers.filter(({ at }) => at <= ends).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      world.timers = world.timers.filter((one) => one !== next);
      world.now = Math.max(world.now, next.at);
      next.run();
      await turn();
    }
    world.now = ends;
  };
  return world;
}

test("a window that is alone holds one question and asks no more", async () => {
  const world = browser(), one = world.open();
  await world.pass(60_000);
  assert.deepEqual(one.asked, [null, "a"]);
  world.stamp = "b";
  one.answer();
  await world.pass(1000);
  assert.equal(one.told, 1);
  assert.deepEqual(one.asked, [null, "a", "b"]);
});

test("of several windows none holds a connection, and each is told", async () => {
  const world = browser(), first = world.open();
  await world.pass(5000);
  assert.equal(first.held, 1);
  const all = [first, ...Array.from({ length: 7 }, () => world.open())];
  await world.pass(10_000);
  assert.deepEqual(all.map(({ held }) => held), all.map(() => 0));
  world.stamp = "b";
  await world.pass(5000);
  assert.deepEqual(all.map(({ told }) => told), all.map(() => 1));
  const asked = first.asked.length;
  await world.pass(20_000);
  assert.ok(first.asked.length - asked <= 11, "one question every two seconds");
});

test("the window that is left holds its question again", async () => {
  const world = browser(), one = world.open(), two = world.open(), three = world.open();
  await world.pass(10_000);
  assert.equal(one.held + two.held + three.held, 0);
  two.close();
  three.hide(true);
  await world.pass(20_000);
  assert.deepEqual([one.held, three.held], [1, 0]);
  three.hide(false);
  await world.pass(5000);
  assert.equal(one.held + three.held, 0);
});

test("the first stamp is older than what the page shows, and no connection is held until it is loaded", async () => {
  const world = browser(), one = world.open("loading");
  await world.pass(5000);
  assert.deepEqual([one.asked, one.held], [[null], 0]);
  world.stamp = "b";
  one.loaded();
  await world.pass(1000);
  assert.deepEqual([one.asked, one.told, one.held], [[null, "a", "b"], 1, 1]);
});
