// The train tab: notes at fields, the search over all settings, links to fields, and the form kept over a reload.
window.workbench.train = (() => {
  "use strict";
  let notes = {}; // dotted name -> markup, escaped by the server
  let watched = null; // the tab that the observer watches
  let edited = false; // whether a person changed something in this window: only that is for other windows too
  const observer = new MutationObserver(() => { place(); filter(); });

  const slug = (name) => name.replaceAll(".", "-").replaceAll("_", "-");
  const tab = () => document.getElementById("train");

  function write(field, id, markup) {
    let note = document.getElementById(id);
    if (!note) {
      note = document.createElement("div");
      Object.assign(note, { id, className: "wb-note" });
      note.dataset.live = "train.note"; // whose buttons the tab's live view hears
      field.append(note);
    }
    if (note.dataset.markup === markup) return;
    note.dataset.markup = markup;
    note.innerHTML = markup;
  }

  // A field of a fold that nobody opened yet is not in the page; its note waits for it.
  function place() {
    const wanted = new Set();
    for (const [name, markup] of Object.entries(notes)) {
      const field = document.getElementById(`field-${slug(name)}`);
      wanted.add(`note-${slug(name)}`);
      if (field) write(field, `note-${slug(name)}`, markup);
    }
    // Gradio gives each choice a name of its own, which makes as many stops for the keyboard.
    for (const choice of document.querySelectorAll("#field-preset input")) if (choice.name !== "train-preset") choice.name = "train-preset";
    for (const note of document.querySelectorAll("#train .wb-note")) if (!wanted.has(note.id)) note.remove();
  }

  // What was said of the form as it was goes at once: the server's words on the new one take a moment. The look into the
  // source is asked for anew by whoever shows it, as its place is empty.
  const AT_MOST_MS = 10000; // should no answer come, as the form was refused
  let stale = 0, filled = "", waiting = null; // filled: which filling of the form the last answer was about; waiting: not for that one

  function outdated(refilled = false) {
    clearTimeout(stale);
    tab()?.classList.add("wb-train-stale");
    stale = setTimeout(current, AT_MOST_MS);
    if (refilled) { waiting = filled; document.getElementById("field-data-source")?.dispatchEvent(new Event("wb-quiet")); }
    const place = document.querySelector('[data-live="source.look"]');
    if (place) { place.replaceChildren(); place.live = false; }
  }

  function current() { clearTimeout(stale); waiting = null; tab()?.classList.remove("wb-train-stale"); }

  document.addEventListener("change", (event) => { if (event.target.closest?.("#field-preset")) outdated(true); });
  document.addEventListener("input", (event) => { if (event.target.closest?.("#field-data-source")) outdated(); });
  document.addEventListener("wb-picked", (event) => { if (event.detail.field === "field-data-source") outdated(); });

  function parsed(text) {
    try { return JSON.parse(text || "{}"); } catch { return {}; } // an answer that was cut off: the next one is whole
  }

  // Updates for the run's name, and for the branch of one that was begun, unless something else was typed since.
  const STAYS = { __type__: "update" };
  const next = ({ named: [was, name] = [] }, run) => (was !== undefined && was === run?.trim() ? name : STAYS);
  function begun(filled, run, branch) {
    const told = parsed(filled);
    return [next(told, run), told.branch && told.branch === branch?.trim() ? "" : STAYS];
  }

  // What begins a run is off until it is answered: Gradio leaves out a click that comes before, though the form is another
  // one by then.
  const BEGINS = "#train-start, #train-queue-up, #train-submit", LONGEST_MS = 30000;
  const off = new Map(); // button -> when it is on again though nothing was answered
  function answered() {
    for (const [button, timer] of off) { clearTimeout(timer); button.disabled = false; }
    off.clear();
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(BEGINS);
    if (button) setTimeout(() => { button.disabled = true; off.set(button, setTimeout(answered, LONGEST_MS)); }); // once Gradio has heard it
  });

  // `shown`: what the server keeps of the page, as JSON. Returns an update for the run's name.
  function showNotes(shown, run) {
    const told = parsed(shown);
    notes = told.notes || {};
    window.workbench.mixture?.told(told);
    if (tab() && told.target) tab().dataset.target = told.target; // the style hides the fields that another engine has
    filled = told.filled || "";
    if (filled !== waiting) current();
    if (tab() !== watched) {
      watched = tab();
      observer.disconnect();
      observer.observe(watched, { childList: true, subtree: true });
    }
    place();
    if ("form" in told) keep(told.form);
    const link = window.workbench.params();
    if (link.tab === "train") window.workbench.url(Object.fromEntries(LINKS.filter((key) => key in link).map((key) => [key, null])));
    return next(told, run);
  }

  // The form over a reload: this window's own in sessionStorage, and for new windows what was edited last in any.
  const LINKS = ["from_run", "from_job", "preset", "branch", "at", "tokenizer", "settings"]; // what a link fills the form from, once
  let key = ""; // by folder of runs: servers of several folders may take turns at one address

  function stores(work) { // a private window may have none: the form lasts as long as the page
    try { return work(window.sessionStorage, window.localStorage); } catch { return ""; }
  }

  // Asked before anything is kept, when the page's elements may not be there yet.
  function kept(runs) {
    key = `workbench-train:${runs}`;
    return stores((own, all) => own.getItem(key) ?? all.getItem(key) ?? "");
  }

  function keep(form) { // an empty text: this window's form is as it opens, whatever other windows have
    if (!key) return;
    const text = form ? JSON.stringify(form) : "";
    stores((own, all) => {
      own.setItem(key, text);
      if (edited && text) all.setItem(key, text);
      else if (edited) all.removeItem(key);
    });
  }

  for (const kind of ["input", "change", "click"]) {
    document.addEventListener(kind, (event) => {
      if (kind === "click" && !event.target.closest?.("[data-act=reset], #train-load")) return;
      if (tab()?.contains(event.target) && event.target.id !== "train-find") edited = true;
    }, { capture: true });
  }

  // Search. Folds are opened, as the page has the fields of an open one only; those it opened it closes again.
  const opened = new Set();
  const foldButton = (fold) => fold.querySelector("button");
  const isOpen = (fold) => foldButton(fold)?.classList.contains("open") || Boolean(fold.querySelector(".wb-fields"));
  const words = () => (document.getElementById("train-find")?.value || "").toLowerCase().split(/\s+/).filter(Boolean);

  function search() {
    const asked = words();
    for (const fold of document.querySelectorAll("#train [id^=fold-]")) {
      if (asked.length && !isOpen(fold)) { opened.add(fold.id); foldButton(fold)?.click(); }
      if (!asked.length && opened.delete(fold.id) && isOpen(fold)) foldButton(fold)?.click();
    }
    filter();
  }

  function filter() {
    const asked = words(), form = document.querySelector("#train .wb-train-form");
    if (!form || (!asked.length && !form.classList.contains("wb-found"))) return;
    form.classList.toggle("wb-found", asked.length > 0);
    let count = 0;
    for (const field of form.querySelectorAll("[id^=field-]")) {
      const text = field.textContent.toLowerCase();
      const out = !asked.every((word) => text.includes(word));
      if (field.classList.contains("wb-out") !== out) field.classList.toggle("wb-out", out);
      count += out ? 0 : 1;
    }
    const said = form.querySelector(".wb-search [role=status]"), told = !asked.length ? "" : count === 1 ? "1 setting" : `${count} settings`;
    if (said && said.textContent !== told) said.textContent = told;
  }

  document.addEventListener("input", (event) => { if (event.target.id === "train-find") search(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "train-find" && event.key === "Escape") { event.target.value = ""; search(); }
  });

  // Links to fields: out of a search, into a fold, and the keyboard with them.
  function focus(name, fold) {
    const box = document.getElementById("train-find");
    if (box?.value) { box.value = ""; search(); }
    const folded = fold && document.getElementById(fold);
    if (folded && !isOpen(folded)) foldButton(folded)?.click();
    const until = Date.now() + 2000;
    (function look() {
      const field = document.getElementById(`field-${slug(name)}`);
      const input = field?.offsetParent && (field.querySelector("[aria-invalid=true]") || field.querySelector("input:not([disabled]), textarea:not([disabled])"));
      if (!input) { if (Date.now() < until) setTimeout(look, 50); return; }
      input.focus({ preventScroll: true });
      input.select?.();
      field.scrollIntoView({ block: "center" });
    })();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("#train a[data-field]");
    if (link) { event.preventDefault(); focus(link.dataset.field, link.dataset.fold); }
    if (event.target.closest?.("#train-first [data-act=rate]")) focus("optimizer.lr");
    const copy = event.target.closest?.("#train [data-copy]");
    if (copy) {
      const text = copy.parentElement.querySelector("pre").textContent;
      navigator.clipboard?.writeText(text).then(() => { copy.textContent = "Copied"; }, () => { copy.textContent = "Select and copy it"; });
    }
  });

  return { showNotes, begun, answered, kept, keep, focus };
})();
