// Cells of the table of runs: one line for a run, one for a group. All text is text: nothing of a run is markup.
// `table`: what tab-monitor-table.js lends.
window.workbench.tableCells = (table) => {
  "use strict";
  const rt = window.workbench.runRows;
  const { element, button } = window.workbench.tableParts;

  function tickCell(label, work) {
    const cell = element("td", "wb-rt-tick"), box = element("input");
    box.type = "checkbox";
    box.tabIndex = -1; // a line is one tab stop: the space bar ticks it
    box.setAttribute("aria-label", label);
    box.addEventListener("click", (event) => work(box.checked, event.shiftKey));
    cell.append(box);
    return cell;
  }

  function run(row) {
    const name = element("th", "wb-rt-name-cell"), swatch = element("i", "wb-rt-colour"), open = button(row.name, () => table.open(row.name), "wb-rt-open");
    name.scope = "row";
    open.tabIndex = -1;
    open.title = row.name;
    if (row.colour) swatch.style.background = `var(--wb-run-${row.colour})`;
    name.append(swatch, open);
    if (row.branch) { open.title = `${row.name}, ${row.branch}`; open.setAttribute("aria-label", open.title); }
    if (row.star) { const star = element("span", "wb-run-star", "★"); star.setAttribute("role", "img"); star.setAttribute("aria-label", "starred"); name.append(star); }
    if (row.alerts) name.append(element("span", "wb-chip wb-chip-bad", `${row.alerts} ${row.alerts === 1 ? "alert" : "alerts"}`));
    if (row.archived) name.append(element("span", "wb-chip", "archived"));
    return [tickCell(`Tick ${row.name}`, (yes, range) => table.tick([row.name], yes, range)), name, ...table.columns().map((column) => runCell(row, column))];
  }

  function runCell(row, column) {
    const value = rt.value(row, column.key, table.settings()), cell = element("td");
    cell.dataset.label = column.title;
    cell.dataset.key = column.key;
    if (column.kind === "state") return state(cell, row);
    if (value === null) { cell.append(element("span", "wb-rt-nothing", "–")); cell.classList.toggle("wb-rt-number", rt.numeric(column, [row], table.settings())); return cell; }
    if (column.kind === "share") return share(cell, row);
    if (column.kind === "when") { const when = document.createElement("wb-when"); when.setAttribute("at", String(Math.round(value))); when.append(element("time")); cell.append(when); return cell; }
    if (column.kind === "tags") { cell.append(...row.tags.map((tag) => element("span", "wb-mon-tag", tag))); return cell; }
    const muon = muonRate(row, column), text = muon ? `AdamW ${rt.shown(value, column)} · Muon ${rt.shown(muon, column)}` : rt.shown(value, column);
    cell.append(text);
    if (muon) cell.title = text;
    if (typeof value === "number") cell.classList.add("wb-rt-number"); else cell.title = text;
    if (["val", "best", "bpb", "perplexity"].includes(column.key) && row.measured && row.measured !== table.usual()) {
      const mark = element("span", "wb-rt-other", "≠");
      mark.title = `Measured on ${row.measured}; most of the shown runs on ${table.usual()}.`;
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", mark.title);
      cell.prepend(mark, " ");
    }
    return cell;
  }

  // Of a run with Muon beside the learning rate, which is that of AdamW's part; null for other runs and columns.
  function muonRate(row, column) {
    if (column.key === "lr") return row.muon_lr;
    const of = (key) => table.settings().of(row.name, key);
    return column.key === "optimizer.lr" && of("optimizer.name") === "muon" ? of("optimizer.muon_lr") : null;
  }

  function state(cell, row) {
    const known = /^[a-z]+$/.test(row.state) ? row.state : "lost";
    cell.append(element("span", `wb-badge wb-${row.ghost ? "ghost" : known}`, row.ghost ? "imported" : row.state));
    if (row.ghost) cell.title = `Imported log, ${row.ghost}: no weights`;
    if (row.diverged) cell.append(" ", element("span", "wb-badge wb-failed", "diverged"));
    if (row.reason && row.reason !== row.state) cell.title = row.reason;
    return cell;
  }

  function share(cell, row) {
    const bar = element("span", "wb-run-bar"), done = element("span");
    done.style.width = `${Math.round(1000 * row.share) / 10}%`;
    bar.append(done);
    const part = row.share > 0 && row.share < 0.01 ? "<1" : Math.floor(100 * row.share);
    cell.append(bar, element("span", "wb-rt-share", `${part} %`));
    cell.title = row.steps ? `step ${(row.step || 0).toLocaleString("en-US")} of ${row.steps.toLocaleString("en-US")}` : `step ${row.step ?? "n/a"}`;
    cell.classList.add("wb-rt-progress");
    return cell;
  }

  function group(line) {
    const { members } = line, name = element("th", "wb-rt-name-cell"), fold = button("", () => table.toggle(line.group), "wb-rt-fold");
    name.scope = "row";
    fold.tabIndex = -1;
    fold.setAttribute("aria-expanded", String(line.open));
    fold.append(element("span", "wb-rt-arrow", line.open ? "▾" : "▸"), ` ${line.group} `, element("span", "wb-chip", `${members.length} runs`));
    fold.title = line.group;
    name.append(fold);
    if (table.experiments().includes(line.group)) {
      const open = button("↗", () => window.workbench.experiments.go(`name ${line.group}`), "wb-small");
      open.tabIndex = -1;
      open.title = `Open experiment ${line.group}`;
      open.setAttribute("aria-label", open.title);
      name.classList.add("wb-rt-experiment");
      name.prepend(open);
    }
    const cells = table.columns().map((column) => {
      const cell = element("td");
      cell.dataset.label = column.title;
      cell.dataset.key = column.key;
      if (column.kind === "state") {
        const counts = new Map();
        for (const row of members) counts.set(row.diverged ? "diverged" : row.state, (counts.get(row.diverged ? "diverged" : row.state) || 0) + 1);
        cell.append([...counts].map(([word, n]) => `${n} ${word}`).join(", "));
        cell.title = cell.textContent;
        return cell;
      }
      if (column.kind === "share") return share(cell, { share: members.reduce((sum, row) => sum + row.share, 0) / members.length, step: null, steps: 0 });
      if (column.kind === "when" || column.kind === "tags") return cell;
      const { text, title, many } = rt.together(members, column, table.settings());
      cell.append(text);
      if (title) cell.title = title;
      if (many) cell.classList.add("wb-muted");
      cell.classList.toggle("wb-rt-number", rt.numeric(column, members, table.settings()));
      return cell;
    });
    return [tickCell(`Tick the ${members.length} runs of ${line.group}`, (yes) => table.tick(members.map((row) => row.name), yes)), name, ...cells];
  }

  return { run, group };
};
