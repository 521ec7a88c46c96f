// The monitor tab in the browser: which runs are chosen, what the page has already, the list.
// Its live view asks the server: `ask` says what is chosen and what of the log is there, `receive` takes what is new.
window.workbench.monitor = (() => {
  "use strict";
  const MAX_RUNS = 8;
  const MOST = 120; // of the list, which is for a quick choice; the table has them all
  const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
  const ORDER = { running: 0, saving: 0, starting: 1, queued: 2, failed: 3, lost: 3, stopped: 4, finished: 5 };
  const VIEW = ["x", "logx", "logy", "smooth", "unit", "minus", "panels", "range", "follow", "band", "shade"];
  const PANES = ["log", "samples", "notes", "settings", "results", "events", "details"];

  const rows = new Map(); // name -> what the server said of it
  const unfolded = new Set(); // experiments whose arms are listed one by one
  const items = new Map(); // name -> its <li>
  let depths = new Map(); // name -> how many runs of its family stand over it
  const renames = {}; // old name -> the present one: a link that is followed late still has the old one
  let looked = false; // whether the server has said which runs there are
  let { runs, chosen, link } = fromAddress(); // overlaid in the chart, in this order; the run that the rest of the page is about; the runs of a link that the server will ask for once more
  let mixed = false; // whether the runs have several tokenizers
  const selection = () => [...runs, "", chosen].join(), linked = selection();
  let list = null, first = true;
  let readOnly = false; // whether the server refuses changes
  let sent = {}; // the note that was sent last: {run, text}
  let request = 0; // counts what was asked of this tab from outside
  let view = chartKeys(window.workbench.params()); // of the chart, as asked from outside and not yet passed on

  // ---- what is asked and what comes

  const pick = () => window.workbench.live.ask("monitor");
  const pane = () => PANES.find((name) => document.getElementById(`wb-pane-${name}`)?.offsetParent) || "log";

  function fromAddress() { // from the first question on, so that no other run is shown before the one that was named
    const asked = window.workbench.params();
    const here = !asked.tab || asked.tab === "monitor"; // `run` is another tab's there, `runs` are the ticked ones in all
    const named = names(asked.runs || (here && asked.run) || "");
    return { runs: named, chosen: named.length && NAME.test(asked.focus || "") ? asked.focus : named[0] || "", link: here ? named.join() : "" };
  }

  function names(text) { return [...new Set(text.split(",").map((name) => name.trim()))].filter((name) => NAME.test(name)).slice(0, MAX_RUNS); }

  function chartKeys(given) {
    return Object.fromEntries(VIEW.filter((key) => given[key] !== undefined).map((key) => [key, given[key]]));
  }

  function keepAddress() {
    const now = window.workbench.params();
    const focus = chosen === runs[0] ? undefined : chosen || undefined;
    if (!list?.offsetParent || now.tab !== "monitor" || ((now.runs || "") === runs.join(",") && now.focus === focus)) return;
    window.workbench.url({ runs: runs.join(","), focus });
  }

  function ask() {
    keepAddress();
    const shown = { ...chartKeys(window.workbench.params()), ...view };
    return { runs, focus: chosen, pane: pane(), log: window.workbench.log.asked(), view: shown, request, ...window.workbench.table.asked() };
  }

  function receive(data, fields) {
    if (fields.chart) view = {};
    window.workbench.head.settle();
    if (data.list) mergeList(data.list);
    if (data.readOnly !== undefined) readOnly = data.readOnly;
    if (data.renamed && Object.keys(data.renamed).length) renamed(data.renamed);
    window.workbench.table.receive(data);
    if (data.experiments) draw();
    if (data.log) window.workbench.log.receive(data.log);
  }

  // ---- the selection, which is also in the address

  function select(names, focus, quietly) {
    runs = [...new Set(names.map(present))].filter((name) => NAME.test(name)).slice(0, MAX_RUNS);
    const before = chosen;
    chosen = NAME.test(focus || "") ? present(focus) : runs[0] || "";
    if (before && before !== chosen) window.workbench.step.follow(chosen, rows.get(chosen)?.step ?? 0);
    keepAddress();
    draw();
    if (!quietly) pick();
  }

  function open(text) { // from the address or from another tab: JSON of what was asked of this one
    let asked = {};
    try { asked = JSON.parse(text || "{}"); } catch { /* a damaged request asks for nothing */ }
    const names = String(asked.runs || asked.run || "").split(",").map((name) => name.trim()).filter(Boolean);
    const behind = link && names.join() === link && selection() !== linked; // somebody has chosen others since
    link = "";
    if (behind) return [text];
    view = { ...view, ...chartKeys(asked) };
    request += 1;
    if (names.length && asked.view !== "table") window.workbench.table.show(false);
    if (names.length) select(names, asked.focus || names[0]); else pick();
    const of = asked.run || asked.focus || names[0];
    if (asked.step && names.includes(of)) window.workbench.step.open(of, Number(asked.step));
    return [text];
  }

  const present = (name) => (rows.has(name) ? name : renames[name] || name);

  // The run that the head is about, which its buttons are for: until the answer comes, the one before is shown.
  const shown = () => present(document.querySelector("#wb-monitor-head h2[data-run]")?.dataset.run || chosen);

  // Whose note is saved, with what was sent of it before: its answer may be under way.
  function noted(of, text) {
    const before = sent.run === of?.run ? { before: sent.text } : {};
    sent = { run: of?.run, text };
    return { ...of, ...before };
  }

  function renamed(names) { // the chosen ones go on under their new names
    Object.assign(renames, names);
    for (const [old, name] of Object.entries(names)) if (rows.has(old)) { rows.set(name, { ...rows.get(old), name }); rows.delete(old); items.get(old)?.remove(); items.delete(old); }
    select(runs, chosen);
    setTimeout(keepAddress, 3000); // the address is not written before a link was followed
  }

  function show(name) { // a run alone, unless it is one of those overlaid
    window.workbench.choose.close();
    select(runs.includes(name) ? runs : [name], name);
  }

  function tick(name, on) {
    if (on && runs.length >= MAX_RUNS) { draw(); list.querySelector(".wb-runs-acts b").textContent = `At most ${MAX_RUNS}:`; return; }
    const next = on ? [...runs, name] : runs.filter((other) => other !== name);
    select(next, on && runs.length === 0 ? name : next.includes(chosen) || !next.length ? chosen : next[0]);
  }

  function ticked(what) { // is done to the runs of the chart
    if (what === "compare") window.workbench.table.compare(runs);
    else if (what === "sample") window.workbench.table.sample((runs.includes(chosen) ? [chosen, ...runs.filter((name) => name !== chosen)] : runs).slice(0, 2));
    else if (what === "delete") window.workbench.table.ask("delete", runs);
    else if (what === "none") select([chosen], chosen);
  }

  function step(by) {
    const shown = visible();
    if (!shown.length) return;
    const at = shown.indexOf(chosen);
    const next = shown[at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by))];
    if (next !== chosen) { show(next); items.get(next)?.scrollIntoView({ block: "nearest" }); }
  }

  // ---- the list

  function mergeList(news) {
    if (news.names) {
      const known = new Set(news.names);
      for (const name of [...rows.keys()]) if (!known.has(name)) { rows.delete(name); items.get(name)?.remove(); items.delete(name); }
    }
    for (const row of news.rows) rows.set(row.name, row);
    const were = mixed;
    mixed = tokenizers([...rows.keys()]).size > 1;
    for (const row of mixed === were ? news.rows : rows.values()) if (items.has(row.name)) fill(items.get(row.name), row);
    looked = true;
    if (first && rows.size) {
      first = false;
      if (!chosen) { const name = likeliest(); select([name], name); }
    }
    draw();
  }

  function likeliest() { // what a person most probably came for: the newest at work, else the newest
    const all = [...rows.values()].sort((a, b) => (b.started || 0) - (a.started || 0));
    return (all.find((row) => ORDER[row.state] <= 1) || all[0]).name;
  }

  function visible() {
    const words = (list?.querySelector("input[type=search]").value || "").toLowerCase().split(/\s+/).filter(Boolean);
    const by = list?.querySelector("select").value || "newest";
    const down = (key) => (a, b) => (b[key] ?? -Infinity) - (a[key] ?? -Infinity);
    const newest = down("started");
    const sorts = {
      newest, name: () => 0, share: down("share"), speed: down("speed"),
      loss: (a, b) => (a.loss ?? Infinity) - (b.loss ?? Infinity),
      star: (a, b) => (b.star - a.star) || newest(a, b),
      state: (a, b) => (ORDER[a.state] ?? 9) - (ORDER[b.state] ?? 9) || newest(a, b),
    };
    const sorted = [...rows.values()]
      .filter((row) => !row.archived || row.name === chosen || runs.includes(row.name))
      .filter((row) => { const hay = [row.name, row.state, row.note, ...row.tags, row.star ? "starred" : ""].join("\n").toLowerCase(); return words.every((word) => hay.includes(word)); })
      .sort((a, b) => sorts[by](a, b) || a.name.localeCompare(b.name));
    const found = window.workbench.families.tree(sorted);
    depths = new Map(found.map(({ row, depth }) => [row.name, depth]));
    return found.map(({ row }) => row.name);
  }

  function draw() {
    if (!list) return;
    const every = visible(), searched = Boolean(list.querySelector("input[type=search]").value.trim());
    const lines = window.workbench.folds.lines(every, (name) => rows.get(name)?.group, searched ? [] : window.workbench.table.experiments(), unfolded, [chosen, ...runs]);
    const folded = every.length - lines.filter((line) => line.name).length;
    const all = lines.map((line) => line.name || ` ${line.group}`), shown = all.filter((name, at) => at < MOST || name === chosen || runs.includes(name));
    const box = list.querySelector(".wb-runs-list"), wanted = new Set(shown), groups = new Map(lines.filter((line) => line.group).map((line) => [` ${line.group}`, line]));
    for (const [name, item] of items) if (!wanted.has(name)) { item.remove(); }
    shown.forEach((name, at) => {
      if (groups.has(name)) { group(box, at, groups.get(name)); return; }
      if (!items.has(name)) { items.set(name, make(name)); fill(items.get(name), rows.get(name)); }
      const item = items.get(name);
      if (box.children[at] !== item) box.insertBefore(item, box.children[at] || null);
      item.classList.toggle("wb-run-below", depths.get(name) > 0);
      item.classList.toggle("wb-run-within", lines.some((line) => line.name === name && line.within));
      item.style.setProperty("--wb-depth", String(Math.min(depths.get(name) || 0, 5)));
      const overlaid = runs.indexOf(name);
      const box2 = item.querySelector("input");
      box2.checked = overlaid >= 0;
      box2.style.accentColor = overlaid >= 0 && rows.get(name).colour ? `var(--wb-run-${rows.get(name).colour})` : "";
      item.classList.toggle("wb-mon-chosen", name === chosen);
      const button = item.querySelector("button");
      if (name === chosen) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
    });
    const none = looked && rows.size === 0;
    window.workbench.choose.tell({ name: chosen, state: rows.get(chosen)?.ghost ? "imported" : rows.get(chosen)?.state, more: runs.filter((name) => name !== chosen).length, none });
    list.querySelector(".wb-runs-none").classList.toggle("wb-hidden", !none);
    list.querySelector(".wb-runs-bar").classList.toggle("wb-hidden", none);
    document.getElementById("wb-monitor-run")?.classList.toggle("wb-hidden", none);
    const several = runs.length > 1;
    list.querySelector(".wb-runs-acts").classList.toggle("wb-hidden", !several);
    list.querySelector(".wb-runs-count").classList.toggle("wb-hidden", several); // one line in the place of the other: no row moves
    list.querySelector(".wb-runs-acts b").textContent = `${runs.length} ticked:`;
    list.querySelector("[data-ticked=delete]").disabled = readOnly;
    list.querySelector("[data-ticked=sample]").textContent = runs.length > 2 ? "Sample two" : "Sample";
    const current = [...rows.values()].filter((row) => !row.archived).length;
    const there = every.length - (all.length - shown.length); // those of a fold are there
    const some = all.length > shown.length ? `The first ${there} of ${every.length} runs; the table has them all` : there >= current ? `${there} ${there === 1 ? "run" : "runs"}${folded ? `, ${folded} of them folded` : ""}; tick up to ${MAX_RUNS} to overlay them` : `${there} of ${current} runs`;
    const sorted = list.querySelector("select").value === "loss" && tokenizers(shown).size > 1;
    if (rows.size) say(sorted ? `${some}. They have ${tokenizers(shown).size} tokenizers: losses per token do not compare between them.` : some);
    else say(looked ? "" : "Looking for runs …");
  }

  function group(box, at, line) { // the arms of an experiment
    const id = ` ${line.group}`;
    if (!items.has(id)) items.set(id, window.workbench.folds.item(document, line.group, (name) => { if (!unfolded.delete(name)) unfolded.add(name); draw(); }));
    const item = items.get(id);
    if (box.children[at] !== item) box.insertBefore(item, box.children[at] || null);
    window.workbench.folds.fill(item, line, line.names.map((name) => (rows.get(name).diverged ? "diverged" : rows.get(name).state)));
  }

  const tokenizers = (names) => new Set(names.map((name) => rows.get(name)?.tokenizer).filter(Boolean));

  function say(text) {
    const place = list?.querySelector(".wb-runs-count");
    if (place && place.textContent !== text) place.textContent = text;
  }

  function element(tag, kind, text) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function make(name) {
    const item = element("li", "wb-run");
    item.dataset.run = name;
    const label = element("label", "wb-run-tick"), box = element("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", `Show ${name} in the chart`);
    box.addEventListener("change", () => tick(name, box.checked));
    label.append(box);
    const button = element("button", "wb-run-open");
    button.type = "button";
    button.addEventListener("click", () => show(name));
    item.append(label, button);
    return item;
  }

  function fill(item, row) {
    const title = element("span", "wb-run-title");
    title.append(element("span", "wb-run-name", row.name));
    if (row.star) { const star = element("span", "wb-run-star", "★"); star.setAttribute("aria-label", "starred"); star.setAttribute("role", "img"); title.append(star); }
    if (row.alerts) title.append(element("span", "wb-run-alerts wb-bad", `${row.alerts} ${row.alerts === 1 ? "alert" : "alerts"}`));
    const known = /^[a-z]+$/.test(row.state) ? row.state : "lost";
    title.append(row.ghost ? ghostly(row) : element("span", `wb-badge wb-${known}`, row.state));
    if (row.diverged) title.append(element("span", "wb-badge wb-failed", "diverged"));
    const bar = element("span", "wb-run-bar"), done = element("span");
    done.style.width = `${Math.round(1000 * row.share) / 10}%`;
    bar.append(done);
    const line = element("span", "wb-run-facts", facts(row));
    if (row.tokenizer && mixed) { const spec = element("span", "", row.tokenizer.split("/").at(-1)); spec.title = `tokenizer ${row.tokenizer}`; line.append(" · ", spec); }
    if (row.started) line.append(" · ", window.workbench.times.element(row.started));
    const parts = [title, bar, line];
    if (row.branch) { const told = element("span", "wb-run-branch", row.branch); told.title = row.branch; parts.push(told); }
    if (row.tags.length) { const tags = element("span", "wb-run-tags"); tags.append(...row.tags.map((tag) => element("span", "wb-mon-tag", tag))); parts.push(tags); }
    item.querySelector("button").replaceChildren(...parts);
  }

  function ghostly(row) { // the log of another program
    const badge = element("span", "wb-badge wb-ghost", "imported");
    badge.title = `Imported log, ${row.ghost}: no weights`;
    return badge;
  }

  function facts(row) {
    if (row.state === "queued" && row.reason) return row.reason; // of a cluster: it says more than figures that are not there
    const count = (value) => (value === null ? "n/a" : value.toLocaleString("en-US"));
    const parts = [`step ${count(row.step)}${row.steps ? ` of ${count(row.steps)}` : ""}`, `loss ${row.loss === null ? "n/a" : row.loss < 1e6 ? row.loss.toFixed(3) : row.loss.toPrecision(3)}`];
    if (row.speed !== null) parts.push(`${brief(row.speed)} tokens/s`);
    if (row.eta !== null) parts.push(`${span(row.eta)} left`);
    return parts.join(" · ");
  }

  function brief(value) {
    for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${(value / size).toPrecision(3)}${letter}`;
    return value.toFixed(0);
  }

  function span(seconds) {
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
    return `${Math.floor(seconds)} s`;
  }

  function mountList(host) {
    list = host.querySelector(".wb-runs");
    items.clear();
    window.workbench.choose.mount(list);
    list.querySelector("input[type=search]").addEventListener("input", draw);
    list.querySelector("select").addEventListener("change", draw);
    list.addEventListener("click", (event) => { const to = event.target.closest("[data-wb-go]"); if (to) window.workbench.openTab(to.dataset.wbGo); });
    list.querySelector(".wb-runs-acts").addEventListener("click", (event) => ticked(event.target.dataset.ticked));
    list.querySelector("[data-wb-table]").addEventListener("click", () => window.workbench.table.show(true));
    draw();
    pick();
  }

  document.addEventListener("wb-step-run", (event) => { if (list?.offsetParent) step(event.detail); });
  document.addEventListener("click", (event) => {
    const other = event.target.closest?.("#wb-monitor [data-wb-run]");
    if (other) show(other.dataset.wbRun);
  });

  return { ask, receive, open, select, renamed, looked: () => looked, rows: () => rows, readOnly: () => readOnly, mountList, shown, noted, focus: () => chosen, chosen: () => (runs.length ? runs : [chosen]).join(",") };
})();
