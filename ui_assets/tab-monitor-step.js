// The step card of the monitor tab: one step of a run, its rows and their text, beside the chart.
// The document's event wb:step {run, step} opens it, Escape closes it, and the focus goes back to where it was.
window.workbench.step = (() => {
  "use strict";
  const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
  const LOST = "The server did not answer; choose the step again.";
  let host = null, server = null, send = null; // send: asks another tab for a step
  let shown = null; // {run, step} of the card that is open
  let order = ""; // of its rows: "" highest loss first, "*" source by source, or the one source that is shown
  let waiting = null; // what was asked for before the card was there
  let from = null; // what had the focus before
  let asked = 0; // counts questions, so that a late answer does not replace a newer one

  const find = (name) => host.querySelector(`[data-step=${name}]`);
  const card = () => host.querySelector(".wb-stepcard");
  const isOpen = () => Boolean(host && shown && card().offsetParent !== null);

  // The chart marks the step that is open.
  function told() { document.dispatchEvent(new CustomEvent("wb-step-shown", { detail: shown })); }

  function mount(element, functions, toData) {
    [host, server, send] = [element, functions, toData];
    host.addEventListener("click", clicked);
    find("to").addEventListener("keydown", (event) => {
      const step = Number(find("to").value);
      if (event.key === "Enter" && shown && Number.isInteger(step) && step >= 1) load(shown.run, step);
    });
    host.addEventListener("toggle", (event) => { if (event.target.matches?.(".wb-step-row") && event.target.open) readRow(event.target); }, true);
    if (waiting) { const { run, step } = waiting; waiting = null; open(run, step); }
  }

  function clicked(event) {
    const button = event.target.closest("[data-step]");
    if (!button || !shown) return;
    if (button.dataset.step === "close") close();
    else if (button.dataset.step === "before" || button.dataset.step === "after") { if (button.dataset.to) load(shown.run, Number(button.dataset.to)); }
    else if (button.dataset.step === "more") more();
    else if (button.dataset.step === "order") reorder(button.dataset.order);
    else if (button.dataset.step === "data") send({ run: shown.run, step: shown.step });
    else if (button.dataset.step === "branch") send({ run: shown.run, step: shown.step, to: "train" });
  }

  function open(run, step) {
    if (!NAME.test(run || "") || !Number.isInteger(step) || step < 1) return;
    if (!host) { waiting = { run, step }; return; }
    if (!shown) from = document.activeElement;
    load(run, step, true);
  }

  // The rows of a source of the mixture alone, or source by source; pressed again, as before.
  async function reorder(wanted) {
    order = order === wanted ? "" : wanted;
    const { run, step } = shown, mine = ++asked;
    const answer = await ask({ run, step, order });
    if (mine !== asked) return;
    if (answer.problem) { say(find("note"), answer.problem); return; }
    find("rows").innerHTML = answer.rows;
    left(answer.more);
    [...find("rows").querySelectorAll("[data-order]")].find((one) => one.dataset.order === wanted)?.focus();
  }

  async function load(run, step, focus = false) {
    if (run !== shown?.run) order = "";
    shown = { run, step };
    told();
    const mine = ++asked;
    card().hidden = false;
    card().setAttribute("aria-busy", "true");
    find("title").textContent = `Step ${step.toLocaleString("en-US")}`;
    find("run").textContent = run;
    find("to").value = step;
    card().setAttribute("aria-label", `Step ${step} of ${run}`);
    if (focus) find("title").focus({ preventScroll: true });
    window.workbench.url({ run, step });
    const answer = await ask({ run, step, order });
    if (mine !== asked) return;
    card().removeAttribute("aria-busy");
    find("head").innerHTML = answer.head || "";
    find("rows").innerHTML = answer.rows || "";
    if (answer.problem) say(find("rows"), answer.problem);
    for (const to of ["before", "after"]) { find(to).disabled = !answer[to]; find(to).dataset.to = answer[to] || ""; }
    left(answer.more);
    find("body").scrollTop = 0;
    const worst = find("rows").querySelector(".wb-step-row");
    if (worst) worst.open = true;
  }

  async function ask(question) {
    try {
      const answer = await server.step_card(question);
      return answer?.problem === undefined && answer?.rows === undefined ? { problem: LOST } : answer;
    } catch { return { problem: LOST }; }
  }

  function left(count) {
    const button = find("more");
    button.hidden = !count;
    button.textContent = count === 1 ? "Show the last row" : `Show more of the other ${count} rows`;
  }

  async function more() {
    const { run, step } = shown, mine = asked;
    const list = find("rows").querySelector(".wb-step-rows");
    const before = list.children.length;
    const answer = await ask({ run, step, from: before, order });
    if (mine !== asked || list.children.length !== before) return;
    if (answer.problem) { say(find("note"), answer.problem); return; }
    list.insertAdjacentHTML("beforeend", answer.rows);
    left(answer.more);
    list.children[before]?.querySelector("summary").focus();
  }

  async function readRow(row) {
    if (row.dataset.read) return;
    row.dataset.read = "1";
    const place = row.querySelector(".wb-step-text");
    let answer = null;
    try { answer = await server.step_row({ ...shown, slot: Number(row.dataset.slot) }); } catch { /* said below */ }
    if (answer?.markup !== undefined) { place.innerHTML = answer.markup; return; }
    delete row.dataset.read; // unfolding it again asks again
    say(place, answer?.problem ?? LOST);
  }

  function say(place, text) {
    const line = document.createElement("p");
    Object.assign(line, { className: "wb-muted", textContent: text });
    line.setAttribute("role", "status");
    place.replaceChildren(line);
  }

  // Another run was opened: its own step, where it has got so far.
  function follow(run, reached) {
    if (!shown || shown.run === run) return;
    if (run && reached >= shown.step) load(run, shown.step); else close(false);
  }

  function close(focus = true) {
    if (!shown) return;
    shown = null;
    told();
    asked += 1;
    card().hidden = true;
    window.workbench.url({ run: null, step: null });
    const back = from?.isConnected && from !== document.body ? from : document.querySelector("#wb-monitor-chart [tabindex]");
    from = null;
    if (focus) back?.focus({ preventScroll: true });
  }

  document.addEventListener("wb:step", (event) => open(event.detail?.run, event.detail?.step));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || !isOpen() || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    close();
  });

  return { mount, open, close, follow, isOpen, shown: () => shown };
})();
