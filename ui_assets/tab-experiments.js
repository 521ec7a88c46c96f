// Experiments in the browser: which one is shown, what its forms hold, and the address.
window.workbench.experiments = (() => {
  "use strict";
  let chosen = null, seen = "", answered = ""; // chosen: null until a person, a link or the server says one
  let choices = null, element = null, wanted = null;

  const ask = () => window.workbench.live.ask("experiments");
  const form = (kind) => element?.querySelector(`.wb-exp-form[data-kind="${kind}"]`);
  const opened = () => element?.querySelector(".wb-exp-form[open]")?.dataset.kind || "";

  function held(kind) {
    return Object.fromEntries([...(form(kind)?.querySelectorAll("[data-field]") || [])].map((field) => [field.dataset.field, field.value]));
  }

  function ticked() {
    const { focus, chosen: all } = window.workbench.monitor || {};
    return [...new Set([focus?.(), ...(all?.() || "").split(",")])].filter(Boolean);
  }

  // What the server was asked to show counts once; after that what is chosen in the list.
  function question(value) {
    if (value.shown && value.shown !== seen) {
      seen = value.shown;
      if (value.name || !chosen || chosen === value.gone) show(value.name || null); // another one was chosen while it was deleted
    }
    if (value.question && value.question.nonce !== answered) {
      answered = value.question.nonce;
      open(value.question.kind, value.question.base);
    }
    const link = window.workbench.params();
    if (chosen === null && link.tab === "experiments" && link.name) chosen = link.name;
    const kind = opened();
    return { name: chosen || "", open: kind, form: kind ? held(kind) : {}, ticked: ticked() };
  }

  function show(name) {
    chosen = name;
    window.workbench.url({ tab: "experiments", name, ask: null, run: null });
  }

  // Fills the lists that the server tells; what a person chose stays.
  function fill() {
    if (!choices || !element) return;
    for (const list of element.querySelectorAll("select[data-field]")) {
      const own = [...list.options].filter((option) => !("told" in option.dataset)), now = list.value, known = choices[list.dataset.field];
      if (!known) continue;
      list.replaceChildren(...own, ...known.map(([label, value]) => { const option = new Option(label, value); option.dataset.told = ""; return option; }));
      const usual = list.dataset.field === "base" ? choices.usual : list.dataset.usual;
      list.value = list.dataset.touched ? now : usual;
      if (list.selectedIndex < 0) list.value = usual;
    }
    if (wanted) open(wanted.kind, wanted.base);
  }

  function choose(kind, base) {
    const list = form(kind)?.querySelector('[data-field="base"]');
    if (!list || !base) return;
    list.value = base;
    list.dataset.touched = "yes";
  }

  // Opens a question's form with a run to begin from, and brings it into view.
  function open(kind, base) {
    const one = form(kind);
    wanted = one && choices ? null : { kind, base }; // again once the form and its lists are there
    if (!one) return;
    choose(kind, base);
    one.open = true;
    if (one.getBoundingClientRect().top > window.innerHeight * 0.6) one.scrollIntoView({ block: "start" });
  }

  function receive(data) {
    if (!data.choices) return;
    choices = data.choices;
    const before = JSON.stringify(held(opened()));
    fill();
    if (JSON.stringify(held(opened())) !== before) ask();
  }

  // From Monitor: `name EXPERIMENT`, or a question and the run it is about.
  function go(text) {
    const [what, name] = text.split(" ");
    window.workbench.openTab("experiments");
    window.workbench.url({ tab: "experiments" });
    if (what === "name") { show(name); ask(); } else open(what, `run:${name}`);
  }

  function mount(root) {
    element = root;
    root.addEventListener("toggle", (event) => { // one question at a time
      if (!event.target.matches(".wb-exp-form") || !event.target.open) return;
      for (const other of root.querySelectorAll(".wb-exp-form[open]")) if (other !== event.target) other.open = false;
      ask();
    }, { capture: true });
    for (const kind of ["input", "change"]) {
      root.addEventListener(kind, (event) => { if (event.target.dataset.field) { event.target.dataset.touched = "yes"; ask(); } });
    }
    fill();
  }

  document.addEventListener("click", (event) => {
    const line = event.target.closest?.("[data-exp]");
    if (line) { show(line.dataset.exp); ask(); return; }
    const button = event.target.closest?.("[data-ask]");
    if (button) { open(button.dataset.ask); form(button.dataset.ask)?.querySelector("[data-field]")?.focus(); return; }
    const from = event.target.closest?.('[data-act="experiment"]');
    if (from) { go(from.dataset.id); return; }
    const begin = event.target.closest?.('.wb-exp-form [data-act="begin"]'); // before live.js takes the click further
    if (begin) { const { kind } = begin.closest(".wb-exp-form").dataset; begin.dataset.id = JSON.stringify({ kind, values: held(kind) }); }
  }, { capture: true });

  return { ask: question, receive, mount, go };
})();
