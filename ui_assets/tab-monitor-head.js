// The head of the monitor tab: its buttons press those of Gradio's, its chips open what they are about, one at a time.
window.workbench.head = (() => {
  "use strict";
  const KEY = "workbench-dismissed", MOST = 500; // alerts that are remembered
  const GAP = 4; // pixels between a chip and what it opens
  const pops = () => [...document.querySelectorAll("#wb-monitor-head details.wb-pop")];

  function dismissed() {
    try { return JSON.parse(window.localStorage.getItem(KEY) || "[]"); } catch { return []; }
  }

  // Alerts that this reader has dismissed stay out of the head; a new one of the same kind brings the chip back.
  function settle() {
    const gone = new Set(dismissed());
    for (const pop of pops()) pop.hidden = Boolean(pop.dataset.alerts) && pop.dataset.alerts.split(" ").every((key) => gone.has(key));
  }

  function dismiss(pop) {
    const keys = [...new Set([...dismissed(), ...pop.dataset.alerts.split(" ")])].slice(-MOST);
    try { window.localStorage.setItem(KEY, JSON.stringify(keys)); } catch { /* a private window: it comes back with the page */ }
    pop.open = false;
    pop.hidden = true;
    document.querySelector("#wb-monitor-head .wb-menu > summary")?.focus({ preventScroll: true });
  }

  function place(pop) {
    const body = pop.querySelector(".wb-pop-body"), chip = pop.querySelector("summary").getBoundingClientRect();
    body.style.top = `${chip.bottom + GAP}px`;
    body.style.left = `${Math.max(GAP, Math.min(chip.left, window.innerWidth - body.offsetWidth - GAP))}px`;
    body.style.maxHeight = `${Math.max(120, window.innerHeight - chip.bottom - 4 * GAP)}px`;
  }

  function close(pop, back) {
    if (!pop?.open) return;
    pop.open = false;
    if (back) pop.querySelector("summary").focus({ preventScroll: true });
  }

  document.addEventListener("toggle", (event) => {
    const pop = event.target;
    if (!pop.matches?.("details.wb-pop") || !pop.open) return;
    for (const other of pops()) if (other !== pop) close(other);
    place(pop);
  }, true);

  document.addEventListener("click", (event) => {
    const at = event.target;
    const button = at.closest?.("#wb-monitor [data-press]:not(.wb-item)");
    if (button && window.workbench.live.press("monitor", button.dataset.press, window.workbench.monitor.shown())) document.getElementById(button.dataset.press)?.click();
    if (at.closest?.("[data-dismiss]")) dismiss(at.closest("details.wb-pop"));
    const pane = at.closest?.("#wb-monitor [data-pane]")?.dataset.pane;
    if (pane) showPane(pane);
    for (const pop of pops()) if (!pop.contains(at)) close(pop);
  });

  document.addEventListener("keydown", (event) => {
    const pop = event.key === "Escape" && pops().find((each) => each.open);
    if (!pop) return;
    event.preventDefault();
    close(pop, true);
  }, true);

  window.workbench.follow(() => pops().filter((pop) => pop.open), place, close);

  function showPane(name) {
    const tab = [...document.querySelectorAll("#wb-monitor-panes button[role=tab]")].find((each) => each.textContent.trim().toLowerCase() === name);
    tab?.click();
    tab?.scrollIntoView({ block: "start", behavior: window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  return { settle };
})();
