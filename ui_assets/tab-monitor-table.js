// The table of runs on the page: draws the lines that are in sight, and asks the server for what is done to runs.
// Values, order and address are runRows'; runs and the selection of the chart are the monitor's.
window.workbench.table = (() => {
  "use strict";
  const ROW = 38, CARD = 128, AROUND = 6; // pixels of a line and of a card; lines drawn beyond those in sight
  const NARROW = window.matchMedia?.("(max-width: 640px)") || { matches: false };
  const rt = window.workbench.runRows;
  const monitor = () => window.workbench.monitor;

  let host = null, server = null, trigger = () => {};
  let on = false, view = rt.fromAddress({}), wanted = {};
  let told = { settings: rt.settings({}), titles: {}, trash: [], experiments: [] };
  let picked = new Set(), lines = [], columns = [], at = 0, usual = "", lastTick = -1;
  const drawn = new Map(); // id -> its <tr>

  const part = (name) => host.querySelector(`.wb-rt-view [data-rt=${name}]`);
  const find = (name) => host.querySelector(`.wb-rt-${name}`);
  const { element, button } = window.workbench.tableParts;
  const cells = window.workbench.tableCells({
    columns: () => columns, settings: () => told.settings, experiments: () => told.experiments, usual: () => usual, open: (name) => openRun(name), tick: (...what) => tick(...what), toggle: (group) => toggle(group),
  });
  const acts = window.workbench.tableActs({
    find, button, element, rows: () => rows(), monitor, picked: () => picked, columns: () => columns, told: () => told,
    server: () => server, trigger: (...sent) => trigger(...sent), set, update, show: (yes) => show(yes), shown: () => rt.filtered(rows(), view),
    untick: (names) => { for (const name of names || [...picked]) picked.delete(name); update(); },
    back: () => { if (on && document.activeElement === document.body) drawn.get(lines[at]?.id)?.focus({ preventScroll: true }); },
  });

  // ---- when it is shown, and the address

  function show(yes, quietly) {
    if (!host || on === yes) return;
    on = yes;
    const overlaid = monitor().chosen().split(",");
    if (on && !quietly && !picked.size && overlaid.length > 1) picked = new Set(overlaid); // the ticks of the list
    find("view").classList.toggle("wb-hidden", !on);
    document.documentElement.classList.toggle("wb-rt-on", on); // what it takes the place of may not be there yet
    if (!quietly) window.workbench.url({ view: on ? "table" : null, ...(on ? rt.toAddress(view) : {}) });
    window.workbench.live.ask("monitor");
    if (on) { fill(); update(); if (!quietly) drawn.get(lines[at]?.id)?.focus({ preventScroll: true }); } else { drawn.clear(); find("view").querySelector("tbody").replaceChildren(); }
  }

  function keep() { window.workbench.url(rt.toAddress(view)); }

  function fromAddress() { // as a link or Back has it
    const params = window.workbench.params();
    if (params.tab && params.tab !== "monitor") return;
    view = rt.fromAddress(params);
    if (on === (params.view === "table")) { if (on) { fill(); update(); } } else show(params.view === "table", true);
  }

  function set(changes) { view = { ...view, ...changes }; keep(); update(); }

  function fill() { // the fields of the bar
    part("find").value = view.find;
    part("state").value = view.state;
    part("archived").checked = view.archived;
    part("grouped").checked = !view.flat;
  }

  // ---- what is shown

  function receive(data) {
    if (data.settings) told.settings = rt.settings(data.settings);
    if (data.titles) told.titles = data.titles;
    if (data.experiments) told.experiments = data.experiments;
    if (data.trash) { told.trash = data.trash; if (host) { part("trash").textContent = told.trash.length ? `Trash (${told.trash.length})` : "Trash"; } }
    if (on && (data.list || data.settings || data.titles)) update();
  }

  const rows = () => [...monitor().rows().values()];

  function update() {
    if (!on || !host) return;
    const focused = focusedLine();
    const all = rows(), shown = rt.filtered(all, view);
    const names = rt.filtered(all, { ...view, find: "" }).map((row) => row.name); // no column comes or goes while someone types
    columns = rt.columnsOf(view, told.settings.differing(names), told.titles);
    const id = lines[at]?.id;
    lines = rt.lines(shown, view, told.settings);
    usual = rt.usual(shown);
    at = Math.max(0, lines.findIndex((line) => line.id === id));
    const here = new Set(all.map((row) => row.name));
    picked = new Set([...picked].filter((name) => here.has(name)));
    for (const [name, row] of drawn) if (!lines.some((line) => line.id === name)) { row.remove(); drawn.delete(name); }
    head(shown);
    words(all, shown);
    tags(all);
    acts.bulk();
    draw(true, focused);
  }

  function focusedLine() {
    const row = host.contains(document.activeElement) && document.activeElement.closest("tr[data-id]");
    return row ? row.dataset.id : "";
  }

  function words(all, shown) {
    const hidden = all.filter((row) => row.archived).length, looked = window.workbench.monitor.looked();
    const archived = hidden && !view.archived ? `; ${hidden} archived` : "";
    find("count").textContent = !looked ? "" : `${shown.length === all.length || shown.length === all.length - hidden ? "" : `${shown.length} of `}${all.length - (view.archived ? 0 : hidden)} runs${archived}`;
    const warning = rt.warning(shown, view.sort), place = find("warning");
    place.classList.toggle("wb-hidden", !warning);
    const offer = warning?.offer ? [" ", button("Sort by bits per byte", () => set({ sort: warning.offer }), "wb-small")] : [];
    if (place.dataset.text !== (warning?.text || "")) { place.dataset.text = warning?.text || ""; place.replaceChildren(warning?.text || "", ...offer); }
    find("none").classList.toggle("wb-hidden", shown.length > 0);
    find("scroll").classList.toggle("wb-hidden", !shown.length);
    find("none").querySelector("p").textContent = rt.emptyWords(all.length, looked);
    part("clear").classList.toggle("wb-hidden", !all.length);
  }

  function tags(all) {
    const kinds = [...new Set(all.flatMap((row) => row.tags))].sort();
    const options = [["", "any"], ["★", "★ starred"], ...kinds.map((tag) => [tag, tag])];
    fillSelect(part("tag"), options, view.tag);
    fillSelect(part("sort"), [{ key: "name", title: "Name" }, { key: "started", title: "Started" }, ...columns].filter((each, i, list) => list.findIndex((other) => other.key === each.key) === i)
      .flatMap((each) => { const first = rt.sortedBy(each, ""), other = rt.sortedBy(each, first); return [[first, each.title], [other, `${each.title}, the other way`]]; }), view.sort);
  }

  function fillSelect(select, options, chosen) {
    const text = JSON.stringify(options);
    if (select.dataset.options !== text) {
      select.dataset.options = text;
      select.replaceChildren(...options.map(([value, label]) => { const option = element("option", "", label); option.value = value; return option; }));
    }
    select.value = chosen;
  }

  function head(shown) {
    const stamp = JSON.stringify([columns.map((column) => [column.key, column.title]), view.sort, columns.map((column) => rt.numeric(column, shown, told.settings))]);
    const all = element("input"), tickable = shown.filter((row) => picked.has(row.name)).length;
    const box = find("view").querySelector("thead");
    if (box.dataset.stamp !== stamp) {
      box.dataset.stamp = stamp;
      all.type = "checkbox";
      all.className = "wb-rt-all";
      all.setAttribute("aria-label", "Tick all shown runs");
      all.addEventListener("change", () => { const names = rt.filtered(rows(), view).map((row) => row.name); picked = new Set(all.checked ? names : []); update(); });
      const first = element("th", "wb-rt-tick");
      first.append(all);
      const cells = [{ key: "name", title: "Name", help: "Of the folder", width: 240 }, ...columns].map((column) => {
        const cell = element("th", column.key === "name" ? "wb-rt-name-cell" : "");
        cell.scope = "col";
        if (rt.numeric(column, shown, told.settings)) cell.classList.add("wb-rt-number");
        const way = view.sort === column.key ? "ascending" : view.sort === `-${column.key}` ? "descending" : "none";
        cell.setAttribute("aria-sort", way);
        const sort = button(column.title, () => set({ sort: rt.sortedBy(column, view.sort) }), "wb-rt-head");
        sort.title = [column.help, column.setting ? column.key : ""].filter(Boolean).join("\n");
        if (column.setting) sort.append(element("small", "wb-key", column.key));
        cell.append(sort);
        return cell;
      });
      const row = element("tr");
      row.append(first, ...cells);
      box.replaceChildren(row);
      const group = find("view").querySelector("colgroup");
      group.replaceChildren(...[40, 240, ...columns.map((column) => column.width)].map((width) => { const col = element("col"); col.style.width = `${width}px`; return col; }));
      find("view").querySelector("table").style.width = `${280 + columns.reduce((sum, column) => sum + column.width, 0)}px`;
      for (const tr of drawn.values()) tr.remove();
      drawn.clear();
    }
    const tick = box.querySelector(".wb-rt-all");
    tick.checked = shown.length > 0 && tickable === shown.length;
    tick.indeterminate = tickable > 0 && tickable < shown.length;
  }

  // Only the lines in sight are in the page, between two empty ones that are as high as the rest.
  function draw(anew, focused = host && focusedLine()) {
    if (!on || !host) return;
    const scroll = find("scroll"), body = scroll.querySelector("tbody"), high = NARROW.matches ? CARD : ROW;
    const from = NARROW.matches ? Math.max(0, -body.getBoundingClientRect().top) : scroll.scrollTop;
    const sight = NARROW.matches ? window.innerHeight : scroll.clientHeight || 600;
    const first = Math.max(0, Math.floor(from / high) - AROUND), last = Math.min(lines.length, Math.ceil((from + sight) / high) + AROUND);
    const want = lines.slice(first, last);
    const trs = want.map((line, i) => { let tr = drawn.get(line.id); if (!tr) { tr = make(line); drawn.set(line.id, tr); } if (anew || !tr.cells.length) fillRow(tr, line); tr.setAttribute("aria-rowindex", String(first + i + 2)); tr.tabIndex = first + i === at ? 0 : -1; return tr; });
    const kept = new Set(want.map((line) => line.id));
    for (const [id, tr] of drawn) if (!kept.has(id)) { tr.remove(); drawn.delete(id); }
    const spaces = [space(body, "top", first * high), space(body, "bottom", (lines.length - last) * high)];
    const now = [spaces[0], ...trs, spaces[1]];
    now.forEach((tr, i) => { if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null); });
    while (body.children.length > now.length) body.lastChild.remove();
    scroll.querySelector("table").setAttribute("aria-rowcount", String(lines.length + 1));
    if (focused && document.activeElement?.closest?.("tr")?.dataset.id !== focused) drawn.get(focused)?.focus({ preventScroll: true });
  }

  function space(body, name, height) {
    let tr = body.querySelector(`.wb-rt-${name}`);
    if (!tr) { tr = element("tr", `wb-rt-space wb-rt-${name}`); tr.setAttribute("aria-hidden", "true"); tr.append(element("td")); }
    tr.style.height = `${height}px`;
    tr.classList.toggle("wb-hidden", !height);
    return tr;
  }

  function make(line) {
    const tr = element("tr");
    tr.dataset.id = line.id;
    return tr;
  }

  function fillRow(tr, line) {
    const stamp = JSON.stringify([line.kind === "group" ? [line.open, line.members, told.experiments.includes(line.group)] : line.row, line.within, line.depth, usual, columns.map((column) => column.setting && line.row ? told.settings.of(line.row.name, column.key) : 0)]);
    const ticked = line.kind === "group" ? line.members.filter((row) => picked.has(row.name)).length : Number(picked.has(line.row.name));
    if (tr.dataset.stamp !== stamp) {
      const focus = tr.contains(document.activeElement) && document.activeElement !== tr ? document.activeElement.className : "";
      tr.dataset.stamp = stamp;
      tr.className = line.kind === "group" ? "wb-rt-group" : `wb-rt-run${line.within ? " wb-rt-within" : ""}${line.row.archived ? " wb-rt-archived" : ""}`;
      tr.classList.toggle("wb-rt-branch", line.depth > 0);
      tr.style.setProperty("--wb-depth", String(Math.min(line.depth || 0, 6)));
      tr.replaceChildren(...(line.kind === "group" ? cells.group(line) : cells.run(line.row)));
      if (focus) tr.querySelector(`.${focus.split(" ")[0]}`)?.focus({ preventScroll: true });
    }
    const box = tr.querySelector(".wb-rt-tick input");
    box.checked = ticked > 0 && (line.kind !== "group" || ticked === line.members.length);
    box.indeterminate = line.kind === "group" && ticked > 0 && ticked < line.members.length;
    tr.classList.toggle("wb-rt-picked", box.checked);
  }

  // ---- ticks, keys

  function tick(names, yes, range) {
    const here = lines.findIndex((line) => line.kind === "run" && line.id === names[0]);
    let all = names;
    if (range && lastTick >= 0 && here >= 0) all = lines.slice(Math.min(here, lastTick), Math.max(here, lastTick) + 1).flatMap((line) => (line.kind === "run" ? [line.id] : line.open ? [] : line.members.map((row) => row.name)));
    if (here >= 0) { lastTick = here; at = here; }
    for (const name of all) if (yes) picked.add(name); else picked.delete(name);
    update();
  }

  function toggle(group) { set({ open: view.open.includes(group) ? view.open.filter((other) => other !== group) : [...view.open, group] }); }

  const namesOf = (line) => (!line ? [] : line.kind === "group" ? line.members.map((row) => row.name) : [line.id]);

  function openRun(name) {
    show(false);
    monitor().select([name], name);
  }

  function move(to) {
    at = Math.min(lines.length - 1, Math.max(0, to));
    const scroll = find("scroll"), high = NARROW.matches ? CARD : ROW, body = scroll.querySelector("tbody");
    if (NARROW.matches) {
      const top = body.getBoundingClientRect().top + at * high;
      if (top < 0 || top + high > window.innerHeight) window.scrollBy(0, top < 0 ? top - high : top + 2 * high - window.innerHeight);
    } else {
      const room = scroll.clientHeight - scroll.querySelector("thead").offsetHeight;
      if (at * high < scroll.scrollTop) scroll.scrollTop = at * high;
      else if ((at + 1) * high > scroll.scrollTop + room) scroll.scrollTop = (at + 1) * high - room;
    }
    draw();
    drawn.get(lines[at]?.id)?.focus({ preventScroll: true });
  }

  function key(event) {
    const row = event.target.closest("tr[data-id]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const here = lines.findIndex((line) => line.id === row.dataset.id), line = lines[here];
    if (!line) return;
    const own = event.target !== row; // a button or a box in the line has its own Enter and space
    const page = Math.max(1, Math.floor(find("scroll").clientHeight / ROW) - 2);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: lines.length - 1, PageDown: here + page, PageUp: here - page }[event.key];
    const group = line.kind === "group";
    if (to !== undefined) { if (event.shiftKey && here !== to) tick(namesOf(line), true); move(to); }
    else if (event.key === " " && !own) { const names = namesOf(line); at = here; tick(names, !names.every((name) => picked.has(name))); }
    else if (event.key === "Enter" && !own) { if (group) toggle(line.group); else openRun(line.id); }
    else if (group && (event.key === "ArrowRight" && !line.open || event.key === "ArrowLeft" && line.open)) toggle(line.group);
    else if (event.key === "Delete") acts.askDelete(picked.size ? [...picked] : namesOf(line));
    else return;
    event.preventDefault();
  }

  // ---- the page

  function mount(place, functions) {
    host = place;
    server = functions;
    on = false;
    drawn.clear();
    const listen = (name, kind, work) => part(name).addEventListener(kind, work);
    listen("find", "input", () => set({ find: part("find").value }));
    for (const name of ["state", "tag", "sort"]) listen(name, "change", () => set({ [name]: part(name).value }));
    listen("archived", "change", () => set({ archived: part("archived").checked }));
    listen("grouped", "change", () => set({ flat: !part("grouped").checked }));
    listen("columns", "click", acts.askColumns);
    listen("trash", "click", acts.askTrash);
    listen("close", "click", () => show(false));
    listen("clear", "click", () => { set({ find: "", state: "", tag: "", archived: true }); fill(); });
    find("scroll").addEventListener("scroll", () => draw(), { passive: true });
    find("scroll").addEventListener("keydown", key);
    find("scroll").addEventListener("focusin", (event) => { const row = event.target.closest("tr[data-id]"); const here = row ? lines.findIndex((line) => line.id === row.dataset.id) : -1; if (here >= 0 && here !== at) { at = here; for (const [id, tr] of drawn) tr.tabIndex = id === row.dataset.id ? 0 : -1; } });
    find("dialog").addEventListener("click", (event) => { if (event.target === find("dialog")) acts.close(); });
    fromAddress();
  }

  window.addEventListener("scroll", () => { if (on && NARROW.matches) draw(); }, { passive: true });
  window.addEventListener("resize", () => { if (on) draw(); });
  window.addEventListener("popstate", () => setTimeout(fromAddress));
  NARROW.addEventListener?.("change", () => draw(true));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "l" || event.ctrlKey || event.metaKey || event.altKey || event.target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (document.querySelector("dialog[open]") || !document.querySelector("#wb-monitor")?.closest("[role=tabpanel]")?.offsetParent) return;
    event.preventDefault();
    show(!on);
  });
  document.addEventListener("click", (event) => { // an item of the menu of the chosen run
    const what = event.target.closest?.("#wb-monitor [data-act=run]")?.dataset.id;
    const name = what && host && monitor().shown();
    if (!name) return;
    acts.ask(what, [name]);
  });

  return { mount, wire: (send) => { trigger = send; }, told: (answer) => acts.answered(answer), receive, show, ask: (what, names) => acts.ask(what, names), compare: (names) => trigger("go", { runs: names }), sample: (names) => trigger("go", { tab: "sample", runs: names }), experiments: () => told.experiments, shown: () => on, asked: () => (on ? { table: true } : {}) };
})();
