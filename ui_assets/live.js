// A tab's live view: asks the server what has changed since it asked last, and changes only that in the page.
// `opened` in a question counts how often the tab was opened. A tab's own script may say more in the question (`ask`, given what an event asked for) and take data of the answer (`receive`): window.workbench[tab].
window.workbench.live = (() => {
  "use strict";
  const LONGEST_MS = 30000; // between tries without an answer
  const PRESSED_MS = 10000; // within which a button that is pressed again waits for its answer
  const MOMENT_MS = 100, FRESH_MS = 1000; // until an inner tab is there; what was asked so lately is not asked again
  const FLOATS = ".wb-menu-list, .wb-pop-body"; // placed by a script, see pieces.js
  const views = {};

  const key = (node) => node?.dataset?.key || node?.id || "";
  const alike = (one, two) => one.nodeName === two.nodeName && key(one) === key(two) && one.dataset?.act === two.dataset?.act;

  function update(now, wanted) {
    if (now.nodeName === "WB-WHEN" && now.getAttribute("at") === wanted.getAttribute("at")) return; // written in local time
    if (now.nodeType !== Node.ELEMENT_NODE) { if (now.data !== wanted.data) now.data = wanted.data; return; }
    children(now, wanted); // first: an element that writes its own text does so when its attributes change
    const theirs = now.nodeName === "DETAILS" ? "open" : now.matches(FLOATS) ? "style" : ""; // whoever opened it decides, and it stays where it was put
    for (const { name } of [...now.attributes]) if (name !== theirs && !wanted.hasAttribute(name)) now.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (name !== theirs && now.getAttribute(name) !== value) now.setAttribute(name, value);
  }

  // What is the same stays as it is, with its focus, selection and scroll. Nodes are told apart by data-key or id.
  function children(now, wanted) {
    const keys = new Set([...wanted.childNodes].map(key).filter(Boolean));
    for (const old of [...now.childNodes]) if (key(old) && !keys.has(key(old))) old.remove();
    let at = now.firstChild;
    for (const next of [...wanted.childNodes]) {
      if (at && alike(at, next)) { update(at, next); at = at.nextSibling; continue; }
      const moved = key(next) && [...now.children].find((old) => alike(old, next));
      if (moved) { now.insertBefore(moved, at); update(moved, next); continue; }
      if (at && !key(at)) { const after = at.nextSibling; at.replaceWith(next); at = after; } else now.insertBefore(next, at);
    }
    while (at) { const after = at.nextSibling; at.remove(); at = after; }
  }

  function patch(place, markup) {
    const wanted = document.createElement("template");
    wanted.innerHTML = markup;
    children(place, wanted.content);
  }

  function mount({ name, element, props, server, watch, trigger }) {
    const own = () => window.workbench[name] || {};
    const place = (part) => document.querySelector(`[data-live="${name}.${part}"]`);
    let had = {}, shown = new Set(), timer = 0, asked = 0, opened = 0, asking = false, again = false, failures = 0;
    let rests = false; // asks when something has changed, and not by itself
    let waiting = {}; // by field: what is to be seen of it, until `fields` takes it
    const enabled = {}, acting = new Map(); // acting: what was pressed and is not answered yet, and when
    const visible = () => !document.hidden && element.offsetParent !== null;
    const question = () => ({ ...props.value, ...own().ask?.(props.value || {}), opened });

    async function ask() {
      clearTimeout(timer);
      if (!element.isConnected) return;
      if (asking) { again = true; return; }
      if (!visible()) return; // asked when it comes to the front
      [asking, again, asked] = [true, false, Date.now()];
      let pause;
      try {
        for (const part of shown) if (!place(part)?.live) { delete had[part]; shown.delete(part); } // put up anew, empty
        const wanted = question(), of = JSON.stringify(wanted);
        const answer = await server.live_news({ asked: wanted, digests: had });
        if (!answer?.digests) throw new Error("no answer");
        receive(answer, of !== JSON.stringify(question()));
        [failures, pause, rests] = [0, 1000 * answer.pause, answer.rests];
      } catch (error) {
        console.error(error);
        failures += 1;
        rests = false;
        pause = Math.min(LONGEST_MS, 1000 * 2 ** failures);
        if (failures > 1) patch(element, '<p class="wb-bad" role="status">The server does not answer; asking again.</p>');
      }
      asking = false;
      timer = setTimeout(ask, again ? 0 : pause);
    }

    // late: something else was chosen since the question. Fields are a person's by now, and what was emptied stays empty.
    function receive({ markup, fields: given, data, digests, problem }, late) {
      patch(element, problem);
      const taken = { ...digests }, fields = late ? {} : given;
      if (late) for (const field of Object.keys(given)) { delete taken[field]; again = true; }
      for (const [part, text] of Object.entries(markup)) {
        const where = place(part);
        if (!where || (late && where.live === false)) { delete taken[part]; continue; }
        patch(where, text);
        where.live = true;
        shown.add(part);
      }
      Object.assign(enabled, data.enabled);
      for (const [id, on] of Object.entries(enabled)) { const button = document.getElementById(id); if (button) button.disabled = !on; }
      if (Object.keys(fields).length) {
        for (const [field, more] of Object.entries(fields)) waiting[field] = { ...waiting[field], ...more };
        trigger("apply");
      }
      Object.assign(had, taken);
      own().receive?.(data, fields);
    }

    function acted(event) { // a button in a part names an action and what it is done to
      if (!element.isConnected) { document.removeEventListener("click", acted); return; }
      const button = event.target.closest?.("[data-act]");
      if (!button?.closest("[data-live]")?.dataset.live.startsWith(`${name}.`)) return;
      const { act, id } = button.dataset;
      if (press(act, id)) trigger("act", { act, id });
    }

    // Whether something is not yet under way: pressed twice is once.
    function press(...what) {
      const pressed = JSON.stringify(what), now = Date.now();
      if (now - (acting.get(pressed) ?? 0) < PRESSED_MS) return false;
      acting.set(pressed, now);
      return true;
    }

    // Updates for components of these names, as Gradio takes them.
    function fields(names) {
      const taken = waiting;
      waiting = {};
      return names.map((field) => ({ __type__: "update", ...taken[field] }));
    }

    views[name] = { ask, fields, press, acted: () => { acting.clear(); ask(); }, look: () => { if (Date.now() - asked > FRESH_MS) ask(); }, changed: () => { if (rests || asking) ask(); } }; // an answer under way may be of before
    document.addEventListener("click", acted);
    watch("value", ask);
    const panel = element.closest("[role=tabpanel]") || element; // comes into view when its tab is opened
    new IntersectionObserver((entries) => { if (entries.at(-1).isIntersecting) { opened += 1; ask(); } }).observe(panel);
  }

  document.addEventListener("click", (event) => { // parts of an inner tab are there once it was opened
    if (event.target.closest?.("[role=tab]")) setTimeout(() => { for (const view of Object.values(views)) view.ask(); }, MOMENT_MS);
  });
  document.addEventListener("wb-changed", () => { for (const view of Object.values(views)) view.changed(); });
  document.addEventListener("visibilitychange", () => { for (const view of Object.values(views)) view.look(); });

  return { mount, ask: (name) => views[name]?.ask(), press: (name, ...what) => views[name].press(...what), acted: (name) => views[name]?.acted(), fields: (name, names) => views[name].fields(names), patch };
})();
