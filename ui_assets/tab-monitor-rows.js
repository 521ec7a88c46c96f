// The table of runs as values: its columns, which rows are shown in which order, and how that is written in the address.
// Nothing here touches the page; tab-monitor-table.js draws it.
window.workbench.runRows = (() => {
  "use strict";
  const ORDER = { running: 0, saving: 0, starting: 1, queued: 2, failed: 3, lost: 3, stopped: 4, finished: 5 };
  const NATS = ["loss", "val", "best", "perplexity"]; // per token: these compare within one tokenizer only
  const MEASURED = ["val", "best", "bpb", "perplexity"]; // on a text
  const BEFORE = 5; // of the usual columns stand before those
  const PROPOSED = 3; // settings that differ, shown by themselves
  const ASIDE = /^(log|sample|checkpoint)\.|^data\.(cache_dir|cache_gb|threads|token_cache)$/; // differ without an effect on the loss

  const SEEDS = ["data.seed", "model.seed"]; // replicates of one recipe

  const count = (value) => Math.round(value).toLocaleString("en-US");
  const decade = (value) => Math.floor(Math.log10(Math.abs(value) || 1)); // the server tells six digits: no more are shown
  const fixed = (digits) => (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toFixed(Math.max(0, Math.min(digits, 5 - decade(value)))));
  const plain = (value) => String(Number(value.toPrecision(6)));

  function short(value) {
    for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${(value / size).toPrecision(3)}${letter}`;
    return plain(value);
  }

  function bytes(value) {
    for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
    return `${value} B`;
  }

  function span(seconds) {
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const at = Math.max(0, units.findIndex(([, size]) => seconds >= size));
    const at1 = seconds < 1 ? 3 : at, [unit, size] = units[at1];
    const rest = at1 < 3 ? Math.floor((seconds % size) / units[at1 + 1][1]) : 0;
    return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${units[at1 + 1][0]}` : ""}`;
  }

  // Every column has a key, a title, help, and `text` of a value; `low`: small is good, and comes first.
  const COLUMNS = [
    { key: "state", title: "State", kind: "state", width: 172, help: "What the run is doing" },
    { key: "share", title: "Progress", kind: "share", width: 128, help: "Steps done of all" },
    { key: "loss", title: "Training loss", text: fixed(4), low: true, width: 112, help: "Of the last step, nats per token" },
    { key: "val", title: "Validation loss", text: fixed(4), low: true, width: 122, help: "Latest on held-out text, nats per token" },
    { key: "bpb", title: "Bits per byte", text: fixed(4), low: true, width: 108, help: "Latest on held-out text; compares between tokenizers" },
    { key: "rate", title: "Tokens/s", text: short, width: 92, help: "At the last step" },
    { key: "duration", title: "Duration", text: span, width: 104, help: "Of all attempts together" },
    { key: "started", title: "Started", kind: "when", width: 128, help: "When the latest attempt began" },
    { key: "tokens", title: "Tokens seen", text: short, width: 106, help: "Trained on so far" },
    { key: "bytes", title: "On disk", text: bytes, width: 92, help: "All files of the run" },
    { key: "parameters", title: "Parameters", text: short, width: 104, help: "Of the model" },
    { key: "best", title: "Best validation", text: fixed(4), low: true, width: 120, help: "Lowest on the same held-out text, nats per token" },
    { key: "perplexity", title: "Perplexity", text: plain, low: true, width: 106, help: "Of the latest validation" },
    { key: "step", title: "Step", text: count, width: 86, help: "The last step done" },
    { key: "steps", title: "Steps in all", text: count, width: 100, help: "That the run is to make" },
    { key: "eta", title: "Time left", text: span, low: true, width: 100, help: "Of a run at work" },
    { key: "epoch", title: "Passes", text: fixed(3), width: 90, help: "Over the training data" },
    { key: "lr", title: "Rate at the last step", text: plain, width: 196, help: "Learning rate; of a run with Muon that of its AdamW part and Muon's" },
    { key: "grad_norm", title: "Gradient norm", text: plain, low: true, width: 112, help: "Of the last step" },
    { key: "step_ms", title: "Step time (ms)", text: fixed(1), low: true, width: 112, help: "Of the last step" },
    { key: "data_wait_ms", title: "Data wait (ms)", text: fixed(2), low: true, width: 112, help: "Of the last step" },
    { key: "mfu", title: "Model FLOPs used", text: (value) => `${(100 * value).toFixed(1)} %`, width: 112, help: "Share of the device's peak" },
    { key: "memory_bytes", title: "Memory", text: bytes, low: true, width: 96, help: "Peak of the device, or of the process" },
    { key: "attempt", title: "Attempts", text: count, low: true, width: 90, help: "How often the run was begun or resumed" },
    { key: "group", title: "Group", kind: "word", width: 130, help: "Given by a person, or by the name of an experiment or study" },
    { key: "tags", title: "Tags", kind: "tags", width: 140, help: "Words given by a person" },
    { key: "measured", title: "Measured on", kind: "word", width: 220, help: "The text of the validation" },
    { key: "note", title: "Note", kind: "word", width: 220, help: "The beginning of notes.md" },
  ];
  const BASE = COLUMNS.slice(0, 11).map((column) => column.key);
  const KNOWN = new Map(COLUMNS.map((column) => [column.key, column]));

  // What the server said of the settings, by run and key.
  function settings(told) {
    const at = new Map((told?.names || []).map((name, i) => [name, i]));
    const same = told?.same || {}, differ = told?.differ || {};
    const keys = [...Object.keys(differ), ...Object.keys(same)];
    return {
      keys,
      of: (name, key) => (key in differ ? differ[key][at.get(name)] ?? null : at.has(name) ? same[key] ?? null : null),
      differing: (names) => Object.keys(differ).filter((key) => new Set(names.filter((name) => at.has(name)).map((name) => JSON.stringify(differ[key][at.get(name)] ?? null))).size > 1),
    };
  }

  function column(key, titles = {}) {
    if (KNOWN.has(key)) return KNOWN.get(key);
    if (!/^[a-z]+\.[a-z0-9_]+$/.test(key)) return null;
    const [title, help] = titles[key] || [key, ""];
    return { key, title, help, setting: true, kind: "setting", width: ["optimizer.lr", "data.source", "data.mix"].includes(key) ? 196 : 124 };
  }

  // The settings that are worth a column: those that differ, first those that change what is learned.
  function proposed(differing) {
    const aside = (key) => (key === "data.source" ? -1 : ASIDE.test(key) ? 2 : SEEDS.includes(key) || key === "data.mix" ? 1 : 0);
    return [...differing].sort((a, b) => aside(a) - aside(b));
  }

  // What stands in place of rows. `looked`: the server has said which runs there are.
  function emptyWords(all, looked) {
    if (!looked) return "Looking for runs …";
    return all ? "No run matches the search and the filters." : "No run lies in this folder yet. Train starts one.";
  }

  function columnsOf(view, differing, titles) {
    const own = proposed(differing).filter((key) => !ASIDE.test(key)).slice(0, PROPOSED);
    const keys = view.cols.length ? view.cols : [...BASE.slice(0, BEFORE), ...own, ...BASE.slice(BEFORE)];
    return [...new Set(keys)].map((key) => column(key, titles)).filter(Boolean);
  }

  // ---- what is shown

  function value(row, key, known) {
    if (key === "name") return row.name;
    if (key === "state") return ORDER[row.state] ?? 9;
    if (key === "tags") return row.tags.join(" ") || null;
    const found = key.includes(".") ? known.of(row.name, key) : row[key];
    return found === undefined || found === "" ? null : found;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  // What is missing comes last in both directions.
  function sorter(sort, known) {
    const down = sort.startsWith("-"), key = down ? sort.slice(1) : sort;
    return (a, b) => {
      const [one, two] = [value(a, key, known), value(b, key, known)];
      if (one === null || two === null) return (one === null) - (two === null) || a.name.localeCompare(b.name, "en", { numeric: true });
      const order = compare(one, two);
      return (down ? -order : order) || a.name.localeCompare(b.name, "en", { numeric: true });
    };
  }

  function filtered(rows, view) {
    const words = view.find.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) => {
      if (row.archived && !view.archived) return false;
      if (view.state && (view.state === "diverged" ? !row.diverged : view.state === "active" ? ORDER[row.state] > 1 : row.state !== view.state)) return false;
      if (view.tag && (view.tag === "★" ? !row.star : !row.tags.includes(view.tag))) return false;
      if (!words.length) return true;
      const hay = [row.name, row.state, row.note, row.group, row.tokenizer, ...row.tags, row.star ? "starred" : "", row.diverged ? "diverged" : ""].join("\n").toLowerCase();
      return words.every((word) => hay.includes(word));
    });
  }

  // The lines of the table: runs, and groups of two or more folded into one line until they are opened.
  function lines(rows, view, known) {
    const sorted = [...rows].sort(sorter(view.sort, known));
    if (view.flat) return sorted.map((row) => ({ kind: "run", id: row.name, row }));
    const groups = new Map();
    for (const row of sorted) if (row.group) { if (!groups.has(row.group)) groups.set(row.group, []); groups.get(row.group).push(row); }
    const found = [], seen = new Set(), folded = (row) => (groups.get(row.group)?.length || 0) > 1;
    for (const { row, depth } of window.workbench.families.tree(sorted, folded)) {
      const members = groups.get(row.group);
      if (!folded(row)) { found.push({ kind: "run", id: row.name, row, depth }); continue; }
      if (seen.has(row.group)) continue; // at the place of its first run
      seen.add(row.group);
      const open = view.open.includes(row.group);
      found.push({ kind: "group", id: `group ${row.group}`, group: row.group, members, open });
      if (open) found.push(...members.map((each) => ({ kind: "run", id: each.name, row: each, within: true })));
    }
    return found;
  }

  // What a group says in a column: the best of its runs, a value they share, or how many there are.
  function together(members, column, known) {
    const values = members.map((row) => value(row, column.key, known)).filter((each) => each !== null);
    if (!values.length) return { text: "", value: null };
    if (column.setting || column.kind === "word") {
      const kinds = new Set(values.map(String));
      return kinds.size === 1 ? { text: shown(values[0], column), value: values[0] } : { text: `${kinds.size} values`, value: null, many: true };
    }
    if (["tokens", "bytes", "duration", "alerts"].includes(column.key)) { const sum = values.reduce((a, b) => a + b, 0); return { text: column.text(sum), value: sum, title: "together" }; }
    if (column.low && column.text) { const best = Math.min(...values); return { text: column.text(best), value: best, title: "the best of them" }; }
    const same = new Set(values).size === 1;
    return same && column.text ? { text: column.text(values[0]), value: values[0] } : { text: "", value: null };
  }

  function shown(value, column) {
    if (value === null || value === undefined) return "";
    if (column.text && typeof value === "number") return column.text(value);
    if (typeof value === "number") return plain(value);
    return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
  }

  const numeric = (column, rows, known) => Boolean(column.text) || (column.setting && rows.some((row) => typeof known.of(row.name, column.key) === "number"));

  // ---- what does not compare

  const tokenizers = (rows) => new Set(rows.map((row) => row.tokenizer).filter(Boolean));

  // The text on which most of the shown runs were measured; a validation on another one is marked.
  function usual(rows) {
    const counts = new Map();
    for (const row of rows) if (row.measured) counts.set(row.measured, (counts.get(row.measured) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]))[0]?.[0] || "";
  }

  function warning(rows, sort) {
    const key = sort.replace(/^-/, "");
    const kinds = tokenizers(rows.filter((row) => row[key] !== null && row[key] !== undefined)).size;
    const most = usual(rows), others = MEASURED.includes(key) ? rows.filter((row) => row.measured && row.measured !== most).length : 0;
    const texts = [];
    if (NATS.includes(key) && kinds > 1) texts.push(`These runs have ${kinds} tokenizers, so ${KNOWN.get(key).title.toLowerCase()} per token does not compare between them.`);
    if (others) texts.push(`${others} ${others === 1 ? "run was" : "runs were"} validated on another text than the others, marked ≠.`);
    if (texts.length) return { text: texts.join(" "), offer: NATS.includes(key) && kinds > 1 ? "bpb" : "" };
    return null;
  }

  // ---- the address

  const list = (text) => String(text || "").split(",").map((part) => part.trim()).filter(Boolean);

  function fromAddress(params) {
    const sort = String(params.sort || "");
    return {
      cols: list(params.cols).filter((key) => column(key)).slice(0, 60),
      sort: /^-?[a-z_]+(\.[a-z0-9_]+)?$/.test(sort) ? sort : "-started",
      find: String(params.find || "").slice(0, 200), state: String(params.state || "").slice(0, 20), tag: String(params.tag || "").slice(0, 40),
      archived: params.archived === "1", flat: params.flat === "1", open: list(params.open).slice(0, 100),
    };
  }

  function toAddress(view) {
    return {
      cols: view.cols.join(",") || null, sort: view.sort === "-started" ? null : view.sort, find: view.find || null, state: view.state || null,
      tag: view.tag || null, archived: view.archived ? "1" : null, flat: view.flat ? "1" : null, open: view.open.join(",") || null,
    };
  }

  // A first click sorts numbers with the good ones first, words from a to z; a second one the other way.
  function sortedBy(column, now) {
    const first = column.low || !column.text && column.key !== "started" && column.key !== "share" ? column.key : `-${column.key}`;
    const other = first.startsWith("-") ? first.slice(1) : `-${first}`;
    return now === first ? other : first;
  }

  return { COLUMNS, BASE, ORDER, settings, column, proposed, columnsOf, emptyWords, value, filtered, lines, together, shown, numeric, tokenizers, usual, warning, fromAddress, toAddress, sortedBy, bytes, short, span };
})();
