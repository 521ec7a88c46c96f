// The ripples tab in the browser: its address, and what a step was made of.
window.workbench.ripples = (() => {
  "use strict";
  const KEYS = ["run", "reference", "column", "batch_tokens", "steps", "dataset", "file_tokens", "files", "streams"];
  const WAIT_MS = 120; // a pointer that passes over asks for nothing

  let peak = null; // of the report that is shown
  let forget = () => {}; // what is told of a step, of the run before
  // Another site's link may show this tab: nothing is measured until something is chosen here.
  let link = Boolean(document.querySelector('meta[name="wb-link"]')?.content || new URL(window.location.href).searchParams.get("link"));

  // What a person chose, added to what is asked for, and put into the address.
  function apply(asked, values) {
    const given = Object.fromEntries(KEYS.map((key, i) => [key, values[i]]).filter(([, value]) => value !== null && value !== ""));
    const { first, second, study } = asked || {};
    peak = null;
    link = false;
    window.workbench.url({ tab: "ripples", part: null, study: null, first: null, second: null, ...Object.fromEntries(KEYS.map((key) => [key, given[key] ?? null])) });
    return { first, second, study, ...given };
  }

  function pair(asked, [first, second]) {
    window.workbench.url({ tab: "ripples", part: "pair", first, second });
    return { ...asked, first, second };
  }

  function study(asked, [study]) {
    window.workbench.url({ tab: "ripples", part: "study", study });
    return { ...asked, study };
  }

  function choose(key) {
    peak = key;
    window.workbench.live.ask("ripples");
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#wb-ripples-spectrum button[data-peak]");
    if (button) choose(button.dataset.peak);
  });

  function mountStep(element, server, trigger) {
    const box = element.querySelector("input"), line = element.querySelector("p"), open = element.querySelector("button");
    const begins = line.textContent;
    let waiting = 0, asked = 0;

    forget = () => {
      window.clearTimeout(waiting);
      asked += 1;
      [box.value, line.textContent, open.hidden] = ["", begins, true];
    };

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
    open.addEventListener("click", () => trigger("click", { run: run(), step: Number(box.value) }));
  }

  // Another report begins with its own first peak, whatever was chosen of the last.
  function receive(data, fields) {
    if (fields.peak) peak = fields.peak.value;
    if (data.of) forget();
  }

  // What is measured where nothing is chosen here: what is ticked in Monitor, the one in focus first.
  function ticked() {
    const { focus, chosen } = window.workbench.monitor || {};
    return [...new Set([focus?.(), ...(chosen?.() || "").split(",")])].filter(Boolean);
  }

  // A link is known by its address before the server has filled the fields from it.
  function ask(value) {
    const address = window.workbench.params(), named = !value.run && address.tab === "ripples" && address.run;
    const given = named ? Object.fromEntries(KEYS.filter((key) => address[key]).map((key) => [key, address[key]])) : {};
    return { ...given, peak, ticked: ticked(), ...(link ? { link } : {}) };
  }

  return { apply, pair, study, choose, ask, receive, mountStep };
})();
