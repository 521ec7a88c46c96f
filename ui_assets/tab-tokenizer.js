// Tokenizer: tokens that can be pointed at and walked through, and the vocabulary as a list to search.
window.workbench.tokenizer = (() => {
  "use strict";
  const PAUSE = 150; // milliseconds after the last key until a search is asked for
  const COUNT = 50; // rows of a page
  const PLACEHOLDER = { text: "text, ␣ for a space", id: "262 or 256-300", bytes: "bytes, such as e2 80" };
  const SORTS = { id: "by id", used: "most used first", shortest: "shortest first", longest: "longest first" };
  let shown = null; // the vocabulary of this page
  let before = ""; // the tokenizer that was chosen as the server was asked which one to begin with

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  const number = (value) => value.toLocaleString("en");
  const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

  // ---- the tokens of a text

  function told(token) {
    const [id, ...bytes] = token.dataset.t.split(" ");
    return `id ${id} · ${plural(bytes.filter(Boolean).length, "byte")}: ${bytes.join(" ")}`;
  }

  function tell(event) {
    const token = event.target.closest?.(".wb-tok[data-t]");
    const line = token?.closest(".wb-tok-part")?.querySelector(".wb-tok-detail");
    if (!line) return;
    line.textContent = told(token);
    if (event.type === "focusin") { token.setAttribute("role", "button"); token.setAttribute("aria-label", `${token.textContent}, ${told(token)}`); }
  }

  function next(all, at, key) {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: all.length - 1 }[key];
    return to === undefined ? null : all[Math.max(0, Math.min(to, all.length - 1))];
  }

  // One of many is in the tab order; the arrow keys go on from there.
  function rove(all, from, to) {
    for (const each of all) if (each !== to && each.tabIndex === 0) each.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  function keyed(event) {
    const token = event.target.closest?.(".wb-tok[data-t]");
    if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); find(token); return; }
    const all = [...token.parentElement.querySelectorAll(".wb-tok[data-t]")], to = next(all, all.indexOf(token), event.key);
    if (!to) return;
    event.preventDefault();
    rove(all, token, to);
  }

  function find(token) {
    shown?.jump(Number(token.dataset.i), token.closest(".wb-tok-part")?.dataset.spec);
  }

  function clicked(event) {
    const token = event.target.closest?.(".wb-tok-part .wb-tok[data-t]");
    if (token) find(token);
    if (event.target.closest?.("[data-tok-open='train']")) {
      const fold = document.querySelector("#wb-tok-train button");
      if (fold && !fold.classList.contains("open")) fold.click();
      setTimeout(() => document.querySelector("#wb-tok-name input, #wb-tok-name textarea")?.focus(), 100);
    }
  }

  document.addEventListener("mouseover", tell);
  document.addEventListener("focusin", tell);
  document.addEventListener("keydown", keyed);
  document.addEventListener("click", clicked);

  // ---- the vocabulary

  const option = (value, words) => make("option", { value }, words);
  const link = (part) => make("button", { type: "button", class: "wb-tokid", "data-id": part.id, title: `id ${part.id}` }, part.text);

  function rowNode(row, at) {
    const made = row.left ? [link(row.left), " + ", link(row.right)] : [row.kind === "special" ? "special token" : "no merge"];
    return make("tr", { "data-row": row.id },
      make("td", { class: "wb-number" }, make("button", { type: "button", class: "wb-tokid", "data-id": row.id, "data-first": "",
        tabindex: at ? "-1" : "0", "aria-label": `id ${row.id}, ${row.text}` }, String(row.id))),
      make("td", {}, make("code", {}, row.text)),
      make("td", { class: "wb-mono" }, row.hex),
      make("td", { class: "wb-number" }, String(row.bytes)),
      make("td", { class: "wb-number" }, row.rank === undefined ? "" : number(row.rank)),
      make("td", row.left ? {} : { class: "wb-muted" }, ...made),
      make("td", { class: "wb-number" }, row.uses === undefined ? "" : number(row.uses)));
  }

  // The parts of a token as boxes over the bytes they hold: the token above, the bytes below.
  function treeNode(tree) {
    const deepest = Math.max(...tree.map((part) => part.depth)), width = tree[0].bytes;
    const boxes = tree.map((part) => {
      const leaf = part.rank === undefined;
      const words = `${part.text}, id ${part.id}${leaf ? "" : `, merge ${number(part.rank)}`}`;
      return make("button", { type: "button", class: `wb-part${leaf ? " wb-part-leaf" : ""}`, "data-id": part.id, title: words, "aria-label": words,
        style: `grid-column: ${part.from + 1} / span ${Math.max(1, part.bytes)}; grid-row: ${part.depth + 1} / ${leaf ? deepest + 2 : part.depth + 2}` }, part.text);
    });
    return make("div", { class: "wb-tree wb-mono", role: "group", "aria-label": "merges, from the token down to its bytes", tabindex: "0",
      style: `grid-template-columns: repeat(${width}, minmax(1.5rem, 2.7rem))` }, ...boxes);
  }

  function detailNode({ row, tree, merges }) {
    const facts = [`id ${row.id}`, `${plural(row.bytes, "byte")}${row.hex ? `: ${row.hex}` : ""}`];
    if (row.left) facts.push(`merge ${number(row.rank)} of ${number(merges)}`);
    else if (row.kind === "special") facts.push("a special token, which no text becomes");
    else facts.push(merges ? "where merges begin" : "this tokenizer has no merges");
    if (row.uses !== undefined) facts.push(`used ${plural(row.uses, "time")} in the texts compared`);
    return [make("p", {}, make("code", {}, row.text), make("span", { class: "wb-muted" }, ` ${facts.join(" · ")}`)), row.left ? treeNode(tree) : ""];
  }

  // For a server that does not answer Gradio does, with anything.
  function answered(found) {
    if (!found || typeof found !== "object" || !(found.error || found.rows || found.row || found.text !== undefined)) throw new Error("no answer");
    return found;
  }

  function bar() {
    const query = make("input", { type: "search", "aria-label": "search the vocabulary", placeholder: PLACEHOLDER.text, spellcheck: "false", autocomplete: "off" });
    const by = make("select", { "aria-label": "what is searched" }, ...["text", "id", "bytes"].map((each) => option(each, each)));
    const sort = make("select", { "aria-label": "order" }, ...Object.entries(SORTS).map(([value, words]) => option(value, words)));
    const items = ["csv", "tsv"].map((kind) => make("button", { type: "button", class: "wb-item", role: "menuitem", tabindex: "-1", "data-save": kind },
      kind === "csv" ? "What was found, as CSV" : "What was found, as TSV"));
    const menu = make("details", { class: "wb-menu" }, make("summary", { "aria-haspopup": "menu" }, "Download"),
      make("div", { class: "wb-menu-list", role: "menu", "aria-label": "Download" }, ...items));
    return { query, by, sort, node: make("div", { class: "wb-vocab-bar" }, query, by, sort, menu) };
  }

  function pager() {
    const turn = (by, words) => make("button", { type: "button", class: "wb-small", "data-turn": by, "aria-label": `${words} page of the vocabulary` }, words);
    const where = make("span", { class: "wb-muted", role: "status" });
    return { where, node: make("div", { class: "wb-vocab-pager" }, turn(-1, "Previous"), turn(1, "Next"), where) };
  }

  function mount({ element, props, server, watch }) {
    const root = element.querySelector(".wb-vocab");
    const tools = bar(), pages = pager();
    const title = make("h2", { class: "wb-h" }, "Vocabulary"), problem = make("p", { class: "wb-bad", role: "alert" });
    const detail = make("div", { class: "wb-vocab-detail", "aria-live": "polite" }), body = make("tbody", {});
    const heads = [["id", "n"], ["token"], ["bytes"], ["length", "n"], ["rank", "n"], ["made of"], ["uses", "n"]]
      .map(([words, right]) => make("th", { scope: "col", class: right ? "wb-number" : null, title: words === "uses" ? "in the texts that are compared" : null }, words));
    const table = make("div", { class: "wb-scroll wb-vocab-rows", tabindex: "0", role: "region", "aria-label": "vocabulary" },
      make("table", { class: "wb-table" }, make("thead", {}, make("tr", {}, ...heads)), body));
    root.replaceChildren(make("div", { class: "wb-vocab-top" }, title, tools.node), problem, detail, table, pages.node);
    let given = props.value?.tokenizer || "", tokenizer = given, chosen = null, offset = 0, found = 0, asking = 0, looking = 0, timer = 0;

    const wanted = () => ({ tokenizer, query: tools.query.value, by: tools.by.value, sort: tools.sort.value, count: COUNT });

    async function ask(name, request) {
      try { return answered(await server[name](request)); } catch { return { error: "The server does not answer; try again." }; }
    }

    async function list(more = {}) {
      root.setAttribute("aria-busy", "true");
      const turn = ++asking, answer = await ask("vocabulary_page", { ...wanted(), offset, ...more });
      if (turn !== asking) return; // another page was asked for meanwhile
      root.removeAttribute("aria-busy");
      problem.textContent = answer.error || "";
      if (answer.error) { body.replaceChildren(); pages.where.textContent = ""; return; }
      [offset, found] = [answer.offset, answer.found];
      title.textContent = `Vocabulary of ${answer.name}`;
      body.replaceChildren(...answer.rows.map(rowNode));
      mark();
      const last = offset + answer.rows.length;
      pages.where.textContent = found ? `${number(offset + 1)}–${number(last)} of ${plural(found, "token")}${found === answer.size ? `, ${plural(answer.merges, "merge")}` : " found"}` : "Nothing found; search for less, or by id or bytes.";
      pages.node.querySelector('[data-turn="-1"]').disabled = offset === 0;
      pages.node.querySelector('[data-turn="1"]').disabled = last >= found;
      if (more.id === undefined) table.scrollTop = 0;
    }

    function mark() { for (const row of body.children) row.classList.toggle("wb-chosen", row.dataset.row === String(chosen)); }

    async function show(id, turn = ++looking) {
      const answer = await ask("vocabulary_token", { tokenizer, id });
      if (turn !== looking) return; // another token was clicked meanwhile
      detail.replaceChildren(...(answer.error ? [make("p", { class: "wb-bad" }, answer.error)] : detailNode(answer)));
      chosen = id;
      mark();
    }

    // To a token's row, in the whole list, and to its merges.
    async function jump(id, of) {
      const turn = ++looking;
      if (of) tokenizer = of;
      clearTimeout(timer); // a search that was still to be asked for would turn the page away
      tools.query.value = "";
      await list({ id });
      if (turn === looking) await show(id, turn);
      if (turn !== looking) return;
      const row = body.querySelector(`[data-row="${id}"]`);
      if (row) table.scrollTop = row.offsetTop - table.clientHeight / 2;
      detail.scrollIntoView({ block: "nearest" });
    }

    function again() { clearTimeout(timer); offset = 0; list(); }

    async function save(format) {
      const answer = await ask("vocabulary_file", { ...wanted(), format });
      problem.textContent = answer.error || "";
      if (!answer.error) window.workbench.download(answer.name, answer.text, format === "csv" ? "text/csv;charset=utf-8" : "text/tab-separated-values;charset=utf-8");
    }

    tools.query.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(again, PAUSE); });
    tools.by.addEventListener("change", () => { tools.query.placeholder = PLACEHOLDER[tools.by.value]; again(); });
    tools.sort.addEventListener("change", again);
    root.addEventListener("click", (event) => {
      const id = event.target.closest("[data-id]"), turn = event.target.closest("[data-turn]"), kind = event.target.closest("[data-save]");
      if (id?.matches("[data-first]")) show(Number(id.dataset.id));
      else if (id) jump(Number(id.dataset.id));
      if (turn) { offset = Math.max(0, offset + COUNT * Number(turn.dataset.turn)); list(); }
      if (kind) save(kind.dataset.save);
    });
    root.addEventListener("keydown", (event) => {
      const first = event.target.closest("[data-first]");
      if (!first || !["ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
      event.preventDefault();
      const all = [...body.querySelectorAll("[data-first]")], by = { ArrowUp: "ArrowLeft", ArrowDown: "ArrowRight" }[event.key] || event.key;
      rove(all, first, next(all, all.indexOf(first), by));
    });
    watch("value", () => {
      if (!props.value?.tokenizer || props.value.tokenizer === given) return; // said again, while another one is looked at
      given = tokenizer = props.value.tokenizer;
      looking += 1;
      detail.replaceChildren();
      again();
    });
    shown = { jump };
    list();
  }

  return { mount, opening: (spec) => { before = spec; }, chosenSince: (spec) => spec !== before };
})();
