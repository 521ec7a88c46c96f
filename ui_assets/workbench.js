// What all tabs share in the browser: the address, the theme, the keys. No framework, no request.
window.workbench = (() => {
  "use strict";
  const THEME = "workbench-theme";

  // Gradio's wait indicators count tenths of a second, a frame each, and one that was taken away while it waited goes on
  // for as long as the page is open: sixty frames a second of work for nobody. Theirs come once a second.
  const frame = window.requestAnimationFrame.bind(window);
  function counts(work) {
    const text = Function.prototype.toString.call(work);
    return text.length < 100 && text.includes("performance.now()") && text.includes("/1e3");
  }
  window.requestAnimationFrame = (work) => (counts(work) ? setTimeout(() => work(performance.now()), 1000) : frame(work));

  // The first tab selects itself before the address was read; what it writes then would replace the link. What someone
  // did meanwhile counts.
  let followed = false, acted = false, moved = 0; // moved: when someone last did something that may be a move
  for (const kind of ["pointerdown", "keydown"]) {
    document.addEventListener(kind, (event) => {
      acted = true;
      if (!event.altKey) moved = Date.now(); // Alt and an arrow go back
    }, { capture: true });
  }
  function linkFollowed() { followed = true; }

  // Another tab or another run is a move, which Back takes back; a zoom is none, nor is what the page does by itself.
  const MOVES = ["tab", "view", "runs", "run", "source", "models", "part", "study", "first", "second", "name"];
  const MOVE_MS = 3000;

  // Merges flat strings into the query part of the address; null takes a key away.
  function url(changes) {
    if (!followed && !acted) return;
    const before = params(), { tab } = changes;
    if (tab && before.tab && tab !== before.tab && Object.keys(changes).length > 1) return; // an answer to a tab that was left
    const address = new URL(window.location.href);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "") address.searchParams.delete(key);
      else address.searchParams.set(key, String(value));
    }
    for (const passing of ["__theme", "link"]) address.searchParams.delete(passing);
    const after = Object.fromEntries(address.searchParams);
    const move = Date.now() - moved < MOVE_MS && MOVES.some((key) => before[key] !== after[key]);
    if (move) moved = 0; // what follows from a move belongs to it
    window.history[move ? "pushState" : "replaceState"](window.history.state, "", address);
  }

  // Back and Forward: the server is asked for what the address says, as it is for a link.
  let go = () => {}, places = 0;
  function onGo(ask) { go = ask; }
  window.addEventListener("popstate", () => { moved = 0; places += 1; go(window.location.search); });
  function place() { return places; } // another number once someone went back or forward

  function params() {
    return Object.fromEntries(new URL(window.location.href).searchParams);
  }

  // The same with the runs that Monitor shows at this moment, as JSON: they are in the address only once a person moved.
  function watched() {
    const { focus, chosen } = window.workbench.monitor || {}, run = focus?.();
    return JSON.stringify({ ...params(), ...(run ? { focus: run, runs: chosen() } : {}) });
  }

  function theme(name) {
    const dark = name === "dark" || (name !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light"; // of what the browser draws itself
    window.dispatchEvent(new CustomEvent("wb-theme", { detail: { dark } }));
  }

  function stored() {
    try { return window.localStorage.getItem(THEME); } catch { return null; }
  }

  function toggleTheme() {
    const next = document.body.classList.contains("dark") ? "light" : "dark";
    try { window.localStorage.setItem(THEME, next); } catch { /* a private window: the choice lasts as long as the page */ }
    theme(next);
  }

  function openTab(name) {
    const tab = document.querySelector(`button[role="tab"][data-tab-id="${name}"]`)
      || [...document.querySelectorAll('button[role="tab"]')].find((b) => b.textContent.trim().toLowerCase() === name);
    if (tab) { tab.click(); tab.focus(); }
  }

  function download(name, text, type = "text/plain;charset=utf-8") {
    const link = document.createElement("a");
    Object.assign(link, { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function help() {
    const sheet = document.querySelector("dialog.wb-help");
    if (sheet) { if (sheet.open) sheet.close(); else sheet.showModal(); }
  }

  let went = 0; // when "g" was pressed

  function typing(target) {
    return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (Date.now() - went < 1500) {
      const tabs = JSON.parse(document.querySelector("dialog.wb-help")?.dataset.tabs || "{}"); // name -> key
      const name = Object.keys(tabs).find((tab) => tabs[tab] === event.key);
      if (name) { went = 0; event.preventDefault(); openTab(name); return; }
    }
    if (event.key === "g") { went = Date.now(); return; }
    if (event.key === "?") { event.preventDefault(); help(); return; }
    if (event.key === "/") {
      const box = [...document.querySelectorAll(".wb-search input, .wb-search textarea")].find((b) => b.offsetParent);
      if (box) { event.preventDefault(); box.focus(); }
      return;
    }
    if (event.key === "[" || event.key === "]") {
      document.dispatchEvent(new CustomEvent("wb-step-run", { detail: event.key === "]" ? 1 : -1 }));
    }
  }

  document.addEventListener("keydown", key);
  document.addEventListener("click", (event) => {
    const action = event.target.closest?.("[data-wb]")?.dataset.wb;
    if (event.target.matches?.("dialog.wb-help")) event.target.close(); // beside the sheet
    if (action === "theme") toggleTheme();
    if (action === "help") help();
  });
  // Gradio sets the class of the body when it mounts, and again when the system's theme changes: a choice made here wins.
  function keepTheme() {
    const settle = () => {
      const choice = stored();
      if (choice && document.body.classList.contains("dark") !== (choice === "dark")) theme(choice);
    };
    new MutationObserver(settle).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    settle();
  }
  if (document.body) keepTheme();
  else document.addEventListener("DOMContentLoaded", keepTheme);

  // Why a page stays empty or dead behind a proxy: the server takes the proxy's name for it for another site.
  async function reach() {
    const served = document.querySelector('meta[name="wb-host"]')?.content;
    if (!served || served.toLowerCase() === window.location.host) return;
    const answer = await fetch(new URL("gradio_api/reset", document.baseURI), { method: "POST",
      headers: { "content-type": "application/json" }, body: JSON.stringify({ event_id: "" }) });
    if (answer.status !== 403) return;
    tell(`This page was opened as ${window.location.host}, and the proxy in front of it asks the workbench for ${served}. `
      + `Start the workbench with --allow-host ${window.location.host}, or let the proxy pass the name on `
      + "(nginx: proxy_set_header Host $http_host).", true);
  }

  // In the place of the page, until it is there; `stays`: over it, as nothing of it works.
  function tell(words, stays = false) {
    const sheet = document.getElementById("wb-opening");
    if (!sheet || (sheet.classList.contains("wb-stays") && !stays)) return;
    sheet.querySelector("p").textContent = words;
    sheet.classList.add(stays ? "wb-stays" : "wb-late");
  }

  window.addEventListener("error", (event) => { // a module or a style that did not arrive
    const lost = event.target;
    if (lost instanceof HTMLScriptElement || (lost instanceof HTMLLinkElement && lost.rel === "stylesheet")) {
      tell("A part of the page did not arrive; load it again.");
    }
  }, { capture: true });
  reach().catch(() => { /* without a server there is nothing to tell of a proxy */ });

  return { url, place, download, onGo, linkFollowed, params, watched, theme, toggleTheme, openTab, help };
})();
