// The sample tab's texts. Tokens are appended as they come and never redrawn; all text goes in as text, never as markup.
(() => {
  "use strict";
  const STEPS = [0.5, 1, 2, 3, 4, 5, 6, 8]; // nats: the lower ends of the eight grounds
  const PAUSE = 120, LOST = 1000; // milliseconds between two questions, and after one without an answer
  const IN_ADDRESS = 1500; // characters of a prompt that still go into the address
  const FINISH = { end_of_text: "ended its text", stop: "reached a stop string", length: "reached the most new tokens", cancelled: "stopped" };

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value !== null) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null && child !== ""));
    return node;
  }

  const level = (nats) => STEPS.filter((step) => nats >= step).length;
  const number = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const plural = (count, word) => `${number(count, 0)} ${word}${count === 1 ? "" : "s"}`;
  const brief = (count) => count.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
  const percent = (p) => p >= 0.0005 ? `${number(100 * p, 2)} %` : `${(100 * p).toExponential(1)} %`;

  // A token as a person reads it, spaces and line ends made visible.
  function spelled(item) {
    if (item.e) return "end of text";
    if (item.b) return `bytes ${item.b}${item.t ? ` (${item.t})` : ""}`;
    return (item.t || "").replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  }

  function inside(item) {
    if (item.e) return [make("span", { class: "wb-bytes" }, "end of text")];
    if (item.b) return [make("span", { class: "wb-bytes" }, item.b), item.t || ""];
    if (/^[\n\r]+$/.test(item.t)) return [make("span", { class: "wb-sign" }, "↵".repeat(item.t.length)), item.t];
    return [item.t];
  }

  function tokenNode(item, at) {
    const words = `${spelled(item)}, rank ${number(item.r, 0)}, ${number(item.n, 2)} nats`;
    const node = make("span", { class: `wb-drawn wb-nats-${level(item.n)}`, role: "button", tabindex: at ? "-1" : "0", "data-at": at,
      "aria-label": words, "aria-pressed": "false" });
    node.append(...inside(item));
    node.item = item;
    return node;
  }

  function legend() {
    const ends = ["under 0.5", ...STEPS.slice(0, -1).map(String), "8 and more"];
    return make("div", { class: "wb-sample-legend" }, make("span", { title: "−ln p of each token under its model: 0 is certain, 0.7 one in two, 4.6 one in a hundred" }, "Surprisal in nats:"),
      ...ends.map((words, i) => make("span", { class: `wb-drawn wb-nats-${i}` }, words)));
  }

  function shownPane(number) {
    const title = make("h3", {}), state = make("p", { class: "wb-muted wb-sample-state", role: "status" });
    const said = make("span", {}), most = make("button", { type: "button", class: "wb-sample-most", hidden: "" });
    const facts = make("p", { class: "wb-muted wb-sample-facts" }, said, most), notes = make("div", {});
    const prompt = make("span", { class: "wb-sample-prompt" });
    const text = make("div", { class: "wb-sample-text", role: "group", "data-pane": number }, prompt);
    const section = make("section", { class: "wb-sample-pane" }, make("div", { class: "wb-sample-top" }, title, state), facts, notes, text);
    return { section, title, state, said, most, notes, prompt, text, count: 0, told: "", top: null };
  }

  function stateOf(pane, all) {
    if (pane.problem) return pane.problem;
    if (all.problem) return all.problem;
    if (pane.finish === "cancelled" && all.after_stop !== null) return `stopped; ${plural(all.after_stop, "token")} drawn after the request arrived`;
    if (pane.finish) return FINISH[pane.finish] || pane.finish;
    if (all.state === "stopped") return "stopped before its first token";
    if (all.state === "waiting") return all.before ? `waits for the device: ${plural(all.before, "generation")} before it` : "starting the sampling process";
    if (pane.loading) return "loading the model";
    return pane.head ? "writing" : "waiting for its model";
  }

  function factsOf(pane) {
    if (!pane.count) return "";
    const speed = pane.seconds > 0 ? `${number(pane.count / pane.seconds, 1)} tokens/s` : "";
    const bits = pane.bits_per_byte === null ? "" : `${number(pane.bits_per_byte, 3)} bits per byte`;
    return [speed, plural(pane.count, "token"), `${number(pane.nats, 2)} nats in total`, bits].filter(Boolean).join(" · ");
  }

  function notesOf(head) {
    if (!head) return [];
    const { prompt_tokens: tokens, block_size: size } = head, notes = [];
    if (!tokens) notes.push("No prompt: it begins with end of text, as a new document does.");
    if (tokens > size) notes.push(`The prompt has ${number(tokens, 0)} tokens and the context is ${number(size, 0)}: the last ${number(size, 0)} are used.`);
    return notes;
  }

  function update(pane, news, all) {
    const size = news.head ? ` · ${brief(news.head.parameters)} parameters` : "";
    const title = (news.head?.name || news.label) + size, state = stateOf(news, all), facts = factsOf(news);
    if (pane.title.textContent !== title) { pane.title.textContent = title; pane.text.setAttribute("aria-label", `text of ${title}`); }
    if (pane.state.textContent !== state) pane.state.textContent = state;
    pane.state.classList.toggle("wb-bad", Boolean(news.problem || all.problem));
    pane.said.textContent = facts;
    const notes = notesOf(news.head).join("\n");
    if (notes !== pane.told) { pane.told = notes; pane.notes.replaceChildren(...notes.split("\n").map((words) => make("p", { class: "wb-muted" }, words))); }
    if (pane.prompt.textContent !== all.prompt) pane.prompt.textContent = all.prompt;
    const low = pane.text.scrollHeight - pane.text.scrollTop - pane.text.clientHeight < 30;
    for (const item of news.tokens) {
      const node = tokenNode(item, pane.count++);
      pane.text.append(node);
      if (!pane.top || item.n > pane.top.item.n) pane.top = node;
    }
    tellMost(pane);
    if (low && news.tokens.length) pane.text.scrollTop = pane.text.scrollHeight;
  }

  // A long token is cut: it is a label here.
  const short = (item) => { const words = spelled(item); return words.length > 24 ? `${words.slice(0, 23)}…` : words; };

  function tellMost({ most, top }) {
    const at = String(top?.dataset.at ?? "");
    if (most.dataset.token === at) return;
    most.dataset.token = at;
    most.hidden = !top;
    if (!top) return;
    const { item } = top, place = `(token ${number(Number(at) + 1, 0)})`;
    most.replaceChildren("most surprising: ", make("code", {}, short(item)), ` ${number(item.n, 2)} nats ${place}`);
  }

  function listNode(found) {
    const rows = found.rows.map((row, i) => make("tr", { class: [row.chosen ? "wb-chosen" : "", i && row.rank > i + 1 ? "wb-beyond" : ""].join(" ").trim() || null },
      make("td", { class: "wb-number" }, number(row.rank, 0)),
      make("td", {}, make("code", {}, spelled(row)), row.chosen ? " (this token)" : ""),
      make("td", { class: "wb-number" }, percent(row.p)),
      make("td", { class: "wb-number" }, number(row.n, 2)),
      make("td", { "aria-hidden": "true", style: "width: 30%" }, make("span", { class: "wb-share", style: `width: ${100 * row.p}%` }))));
    const head = make("tr", {}, ...["rank", "token", "probability", "nats", ""].map((words) => make("th", { scope: "col" }, words)));
    return make("div", {}, make("h4", {}, found.label), found.note ? make("p", { class: "wb-muted" }, found.note) : "",
      rows.length ? make("table", { class: "wb-table" }, make("thead", {}, head), make("tbody", {}, ...rows)) : "");
  }

  function contextWords(found) {
    if (found.empty) return "At the beginning of a text, after end of text.";
    const tail = `“…${found.context.replaceAll("\n", "↵")}”`;
    const whose = found.differ ? `The two texts differ here. Both lists are of the context that ${found.whose} wrote: ` : "Both lists are of the context ";
    return (found.lists.length > 1 ? whose : "After ") + tail;
  }

  function detailNode(found, words) {
    return [make("h3", {}, `Token ${number(found.at + 1, 0)} of ${found.whose}: ${words}`),
      make("p", { class: "wb-muted" }, contextWords(found)),
      make("div", { class: "wb-sample-lists" }, ...found.lists.map(listNode))];
  }

  // For a server that does not answer Gradio does, with anything.
  function answered(found) {
    if (!found || typeof found !== "object" || !(found.error || found.panes || found.lists || found.text !== undefined)) throw new Error("no answer");
    return found;
  }

  function mount({ element, props, server, watch }) {
    const root = element.querySelector(".wb-sample");
    const tip = window.workbench.sampleTip(root, (item, at) => [make("code", {}, short(item)), make("b", {}, `${number(item.n, 2)} nats`),
      make("span", {}, `rank ${number(item.r, 0)}`), make("span", {}, percent(Math.exp(-item.n))), make("span", { class: "wb-muted" }, `token ${number(at + 1, 0)}`)]);
    let current = "", panes = [], detail = null, problem = null;

    function reset(id) {
      current = id;
      panes = [];
      detail = make("section", { class: "wb-sample-detail", "aria-live": "polite" },
        make("p", { class: "wb-muted" }, "Click a token, or move to it with the arrow keys and press Enter, for the ten likeliest of both models there."));
      problem = make("p", { class: "wb-bad", role: "alert" });
      const save = ["text", "json"].map((kind) => make("button", { type: "button", "data-save": kind }, kind === "json" ? "Save JSON" : "Save text"));
      const top = legend();
      top.append(make("span", { class: "wb-sample-grow" }), ...save);
      root.replaceChildren(top, problem, make("div", { class: "wb-sample-panes" }), detail, tip.node);
    }

    // Generate is Stop while a text is being written: one place, and whoever used the keyboard stays on it.
    function busy(on) {
      const [go, halt] = ["generate", "stop"].map((name) => document.getElementById(`wb-sample-${name}`));
      const held = document.activeElement === (on ? go : halt);
      document.getElementById("wb-sample-actions").dataset.busy = on;
      if (held) (on ? halt : go).focus();
    }

    function show(all) {
      while (panes.length < all.panes.length) {
        panes.push(shownPane(panes.length));
        root.querySelector(".wb-sample-panes").append(panes.at(-1).section);
      }
      all.panes.forEach((news, i) => update(panes[i], news, all));
      root.dataset.state = all.state;
    }

    async function follow(id) {
      reset(id);
      busy(true);
      await asked(id);
      if (current === id) busy(false);
    }

    async function asked(id) {
      while (current === id) {
        let all = null;
        try { all = answered(await server.sample_tokens({ id, counts: panes.map((pane) => pane.count) })); } catch { /* asked again below */ }
        if (current !== id) return;
        problem.textContent = all === null ? "The server does not answer; asking again." : all.error || "";
        if (all?.error) return;
        if (all) show(all);
        if (all && !all.more && ["done", "stopped", "failed"].includes(all.state)) return;
        await new Promise((resolve) => setTimeout(resolve, all === null ? LOST : all.more ? 0 : PAUSE));
      }
    }

    async function choose(node) {
      const id = current, pane = Number(node.closest("[data-pane]").dataset.pane), at = Number(node.dataset.at);
      for (const other of root.querySelectorAll('.wb-drawn[aria-pressed="true"]')) other.setAttribute("aria-pressed", "false");
      node.setAttribute("aria-pressed", "true");
      rove(node);
      detail.setAttribute("aria-busy", "true");
      let found;
      try { found = answered(await server.sample_likeliest({ id, pane, at })); } catch { found = { error: "The server does not answer; try again." }; }
      if (current !== id || node.getAttribute("aria-pressed") !== "true") return;
      detail.replaceChildren(...(found.error ? [make("p", { class: "wb-bad" }, found.error)] : detailNode(found, node.getAttribute("aria-label"))));
      detail.removeAttribute("aria-busy");
      detail.scrollIntoView({ block: "nearest" });
      node.scrollIntoView({ block: "nearest" }); // where both have no room, the token stays
    }

    // One token of a text is in the tab order; the arrow keys go on from there.
    function rove(node) {
      for (const other of node.parentElement.querySelectorAll('.wb-drawn[tabindex="0"]')) other.tabIndex = -1;
      node.tabIndex = 0;
      node.focus();
    }

    async function save(kind) {
      let found;
      try { found = answered(await server.sample_saved({ id: current, kind })); } catch { found = { error: "The server does not answer; try again." }; }
      if (found.error) problem.textContent = found.error;
      else window.workbench.download(found.name, found.text);
    }

    root.addEventListener("click", (event) => {
      const token = event.target.closest("[data-at]"), button = event.target.closest("[data-save]"), most = event.target.closest(".wb-sample-most");
      if (most) choose(most.closest(".wb-sample-pane").querySelector(`[data-at="${most.dataset.token}"]`));
      if (token) choose(token);
      if (button) save(button.dataset.save);
    });
    root.addEventListener("keydown", (event) => {
      const token = event.target.closest("[data-at]");
      if (!token) return;
      const all = token.parentElement.querySelectorAll("[data-at]"), at = Number(token.dataset.at);
      const goal = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: all.length - 1 }[event.key];
      if (goal !== undefined) { event.preventDefault(); rove(all[Math.max(0, Math.min(goal, all.length - 1))]); }
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(token); }
    });
    document.getElementById("wb-sample-page").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      const button = document.getElementById("wb-sample-generate");
      if (button.offsetParent && !button.disabled) button.click();
    });
    watch("value", () => { if (props.value?.id && props.value.id !== current) follow(props.value.id); });
    if (props.value?.id) follow(props.value.id);
  }

  function address(a, b, prompt, seed) {
    window.workbench.url({ tab: "sample", model_a: a, model_b: b, seed, prompt: prompt && prompt.length <= IN_ADDRESS ? prompt : null });
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#wb-sample-now button")) return;
    const settings = document.getElementById("wb-sample-settings");
    settings.scrollIntoView({ block: "start" });
    settings.querySelector("input")?.focus({ preventScroll: true });
  });

  let typed = false; // whether somebody has written a prompt, or taken it away
  document.addEventListener("input", (event) => { if (event.target.closest?.("#wb-sample-prompt")) typed = true; });
  // A link's prompt may come after the offer was made without knowing of it.
  const linked = () => new URL(window.location.href).searchParams.has("prompt");
  const fit = (proposed, now) => (typed || linked() || !proposed ? now : proposed);

  // Updates for both models as the server offers them, each unless another one was chosen since it was asked.
  function offered(text, ...fields) {
    let told = {};
    try { told = JSON.parse(JSON.parse(text || "{}").sets || "{}"); } catch { /* a damaged one offers nothing */ }
    const { was = {}, now = {} } = told;
    return ["a", "b"].map((key, at) => ({ __type__: "update", ...(key in now && (was[key] || "") === (fields[at] || "") ? { value: now[key] } : {}) }));
  }

  window.workbench.sample = { mount, address, fit, offered };
})();
