// The ripples tab in the browser: its address, and what a step was made of.
window.workbench.ripples = (() => {
  "use strict";
  const KEYS = ["run", "reference", "column", "batch_tokens", "steps", "dataset", "file_tokens", "files", "streams"];
  const WAIT_MS = 120; // a pointer that passes over asks for nothing

  function address(applied) {
    let asked = {};
    try { asked = JSON.parse(applied || "{}"); } catch { /* nothing is asked for */ }
    const keys = Object.fromEntries(KEYS.map((key) => [key, asked[key] ?? null]));
    window.workbench.url({ tab: "ripples", part: null, study: null, first: null, second: null, ...keys });
  }

  function mountStep(element, server, trigger) {
    const box = element.querySelector("input"), line = element.querySelector("p"), open = element.querySelector("button");
    let waiting = 0, asked = 0;

    function run() { return document.querySelector("#wb-ripples-chart .wb-chart")?.chart?.view.runs[0] || ""; }

    async function tell(step) {
      const mine = ++asked;
      let words;
      try { words = await server.ripples_step({ run: run(), step }); } catch { words = "The server does not answer."; }
      if (mine !== asked) return;
      line.textContent = words;
      open.hidden = false;
    }

    function take(step, at) {
      window.clearTimeout(waiting);
      if (step === null || step === undefined || !Number.isFinite(Number(step))) return;
      waiting = window.setTimeout(() => { box.value = step; tell(Number(step)); }, at);
    }

    // On the document, as the chart may be put up after this; gone with this element.
    const ends = new AbortController();
    for (const [name, wait] of [["wb-chart-hover", WAIT_MS], ["wb-chart-click", 0]]) {
      document.addEventListener(name, (event) => {
        if (!element.isConnected) ends.abort();
        else if (event.target.closest("#wb-ripples-chart")) take(event.detail?.step, wait);
      }, { signal: ends.signal });
    }
    box.addEventListener("input", () => { if (box.value !== "") take(box.value, 2 * WAIT_MS); });
    open.addEventListener("click", () => trigger("click", { step: Number(box.value) }));
  }

  return { address, mountStep };
})();
