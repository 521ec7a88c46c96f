// What all tabs share in the browser: the address, the theme, the keys. No framework, no request.
window.workbench = (() => {
  "use strict";
  const THEME = "workbench-theme";

  // The first tab selects itself before the address was read; what it writes then would replace the link. What someone
  // did meanwhile counts.
  let followed = false, acted = false;
  for (const kind of ["pointerdown", "keydown"]) {
    document.addEventListener(kind, () => { acted = true; }, { capture: true, once: true });
  }
  function linkFollowed() { followed = true; }

  // Merges flat strings into the query part of the address; null takes a key away.
  function url(changes) {
    if (!followed && !acted) return;
    const address = new URL(window.location.href);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "") address.searchParams.delete(key);
      else address.searchParams.set(key, String(value));
    }
    address.searchParams.delete("__theme");
    window.history.replaceState(window.history.state, "", address);
  }

  function params() {
    return Object.fromEntries(new URL(window.location.href).searchParams);
  }

  function theme(name) {
    const dark = name === "dark" || (name !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", dark);
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

  function help() {
    const sheet = document.querySelector("dialog.wb-help");
    if (sheet) { if (sheet.open) sheet.close(); else sheet.showModal(); }
  }

  const TABS = { t: "train", m: "monitor", r: "ripples", c: "compare", s: "sample", k: "tokenizer", d: "data" };
  let went = 0; // when "g" was pressed

  function typing(target) {
    return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (Date.now() - went < 1500 && TABS[event.key]) { went = 0; event.preventDefault(); openTab(TABS[event.key]); return; }
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

  return { url, linkFollowed, params, theme, toggleTheme, openTab, help };
})();
