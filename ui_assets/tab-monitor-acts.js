// What is done to runs: the bar over the table, the questions it asks, and what came of it. The server does it.
window.workbench.tableParts = {
  element(tag, kind, text) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  },
  button(text, work, kind = "wb-mon-button") {
    const made = window.workbench.tableParts.element("button", kind, text);
    made.type = "button";
    made.addEventListener("click", work);
    return made;
  },
};

// `table`: what tab-monitor-table.js lends.
window.workbench.tableActs = (table) => {
  "use strict";
  const TOAST_MS = 12000;
  const rt = window.workbench.runRows;
  const { element, button, find } = table;

  function bulk() {
    const bar = find("bulk"), names = [...table.picked()], some = table.rows().filter((row) => names.includes(row.name));
    bar.classList.toggle("wb-rt-idle", !names.length); // its room stays: a line that moved would take the next tick
    const archived = some.length > 0 && some.every((row) => row.archived), locked = table.monitor().readOnly?.() || false;
    const stamp = JSON.stringify([names, archived, locked]);
    if (bar.dataset.stamp === stamp) return;
    bar.dataset.stamp = stamp;
    const one = names.length === 1, small = (text, work, off) => { const made = button(text, work, "wb-small"); made.disabled = Boolean(off); return made; };
    if (!names.length) { bar.replaceChildren(element("span", "wb-muted", "Tick runs to overlay, compare, group or delete them.")); return; }
    bar.replaceChildren(
      element("b", "", `${names.length} ticked`),
      small("Overlay", () => { table.show(false); table.monitor().select(names.slice(0, 8), names[0]); if (names.length > 8) say({ text: "The chart shows the first 8 of them." }); }),
      small("Compare", () => table.trigger("go", { runs: names })),
      small(archived ? "Show again" : "Archive", () => act(archived ? "unarchive" : "archive", names), locked),
      small("Group as …", () => askWord("group", names), locked),
      small("Tag …", () => askWord("tag", names), locked),
      small("Rename …", () => askWord("rename", names), locked || !one),
      small("Delete …", () => askDelete(names), locked),
      small("Untick all", () => table.untick()),
    );
  }

  function act(what, names, value = "") {
    close();
    table.trigger("act", { act: what, runs: names, value });
  }

  // What came of it: said at the foot of the page, with what takes it back.
  function answered(answer) {
    if (!answer?.nonce) return;
    if (answer.renamed) table.monitor().renamed(answer.renamed);
    if (["delete", "rename"].includes(answer.asked)) table.untick(answer.done || []);
    const failed = answer.failed || [];
    const lines = failed.map(([name, why]) => why);
    const undo = answer.undo ? { label: "Undo", work: () => act(answer.undo.act, answer.undo.runs, answer.undo.value || "") } : null;
    const more = failed.length > 1 ? `${failed.length} could not be done:` : "";
    say({ text: answer.say ? `${answer.say}.` : "", more, lines, undo, bad: failed.length > 0 });
    table.update();
  }

  let timer = 0;
  function say({ text, more = "", lines = [], undo = null, bad = false }) {
    const place = find("toast");
    clearTimeout(timer);
    const parts = [element("p", "", text || more)];
    if (text && more) parts.push(element("p", "", more));
    if (lines.length) { const list = element("ul"); list.append(...lines.slice(0, 8).map((line) => element("li", "", line)), ...(lines.length > 8 ? [element("li", "", `and ${lines.length - 8} more`)] : [])); parts.push(list); }
    const buttons = element("div", "wb-rt-toast-can");
    const away = () => { clearTimeout(timer); place.classList.add("wb-hidden"); };
    if (undo) buttons.append(button(undo.label, () => { away(); undo.work(); }));
    buttons.append(button("Close", away));
    place.replaceChildren(...parts.filter((each) => each.textContent), buttons);
    place.classList.toggle("wb-rt-bad", bad);
    place.classList.remove("wb-hidden");
    if (!bad) timer = setTimeout(function later() { if (place.contains(document.activeElement) || place.matches(":hover")) timer = setTimeout(later, TOAST_MS / 2); else away(); }, TOAST_MS);
  }

  // ---- questions

  function dialog(title, body, buttons, kind = "") {
    const box = find("dialog");
    box.className = `wb-rt-dialog ${kind}`.trim();
    box.setAttribute("aria-label", title);
    const bar = element("div", "wb-rt-dialog-can");
    bar.append(...buttons, button(buttons.length ? "Cancel" : "Close", close));
    box.replaceChildren(element("h2", "", title), ...body, bar);
    if (!box.open) box.showModal();
    (box.querySelector("[data-first]") || bar.querySelector("button")).focus();
    return box;
  }

  function close() {
    const box = find("dialog");
    if (box?.open) box.close();
    table.back();
  }

  const listed = (names) => (names.length <= 4 ? names.join(", ") : `${names.slice(0, 3).join(", ")} and ${names.length - 3} more`);

  function askDelete(names) {
    if (!names.length) return;
    const chosen = table.rows().filter((row) => names.includes(row.name)), size = chosen.reduce((sum, row) => sum + (row.bytes || 0), 0);
    const busy = chosen.filter((row) => rt.ORDER[row.state] <= 2).map((row) => row.name);
    const yes = button("Move to trash", () => act("delete", names), "wb-mon-button wb-rt-danger");
    yes.dataset.first = "";
    const needed = element("p", "wb-warn");
    const body = [element("p", "", `${listed(names)}: ${rt.bytes(size)}. They go to the trash, from where they can be restored until it is emptied.`)];
    if (names.length === 1) body[0].textContent = `${names[0]}: ${rt.bytes(size)}. It goes to the trash, from where it can be restored until that is emptied.`;
    if (busy.length) body.push(element("p", "wb-warn", `${listed(busy)} ${busy.length === 1 ? "is" : "are"} at work or queued and will stay.`));
    dialog(names.length === 1 ? "Delete this run?" : `Delete ${names.length} runs?`, [...body, needed], [yes]);
    table.server().needed_by({ runs: names }).then((answer) => {
      const others = Object.entries(answer?.needed || {});
      needed.textContent = others.map(([name, by]) => `${listed(by)} began from files of ${name} and cannot go on without them.`).join(" ");
    }).catch(() => { /* the server says no: what the act itself answers counts */ });
  }

  const WORDS = {
    rename: { title: () => "Rename this run", label: "New name", help: "Letters, digits and . _ -, at most 64. Links, jobs and evaluations follow.", yes: "Rename", value: (rows) => rows[0].name },
    group: { title: (n) => `Group ${n === 1 ? "this run" : `${n} runs`}`, label: "Name of the group", help: "Runs of a group fold into one line. Leave it empty to take them out.", yes: "Group", value: (rows) => (new Set(rows.map((row) => row.group)).size === 1 ? rows[0].group : "") },
    tag: { title: (n) => `Tag ${n === 1 ? "this run" : `${n} runs`}`, label: "Tags", help: "Words with blanks or commas between them are added; -word takes one away.", yes: "Tag", value: () => "" },
  };

  function askWord(what, names) {
    const { title, label, help, yes, value } = WORDS[what], chosen = table.rows().filter((row) => names.includes(row.name));
    if (!chosen.length) return;
    const form = element("form"), field = element("input"), name = element("label", "", label);
    form.method = "dialog";
    field.type = "text";
    field.value = value(chosen);
    field.autocomplete = "off";
    field.dataset.first = "";
    name.append(field);
    form.append(name, element("p", "wb-muted", help));
    const send = () => act(what, names, field.value);
    form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
    dialog(title(names.length), [element("p", "wb-muted", listed(names)), form], [button(yes, send)]);
    field.select();
  }

  function askColumns() {
    const search = element("input"), box = element("div", "wb-rt-pick"), names = table.shown().map((row) => row.name), told = table.told();
    search.type = "search";
    search.placeholder = "learning rate, data.source, memory …";
    search.setAttribute("aria-label", "Search columns");
    search.dataset.first = "";
    const differing = rt.proposed(told.settings.differing(names));
    const chosen = new Set(table.columns().map((column) => column.key));
    const all = [...told.settings.keys].sort().map((name) => rt.column(name, told.titles)).filter(Boolean);
    const parts = [["Settings that differ among the shown runs", differing.map((name) => rt.column(name, told.titles)).filter(Boolean)], ["Figures", rt.COLUMNS], ["All settings", all.filter((column) => !differing.includes(column.key))]];
    const list = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      box.replaceChildren(...parts.map(([title, found]) => [title, found.filter((column) => words.every((word) => `${column.title} ${column.key} ${column.help}`.toLowerCase().includes(word)))])
        .filter(([, found]) => found.length).map(([title, found]) => { const group = element("fieldset"); group.append(element("legend", "", title), ...found.map((column) => choice(column))); return group; }));
      if (!box.children.length) box.append(element("p", "wb-muted", "No setting and no figure is called so."));
    };
    const choice = (column) => {
      const label = element("label"), tickbox = element("input");
      tickbox.type = "checkbox";
      tickbox.checked = chosen.has(column.key);
      tickbox.addEventListener("change", () => {
        if (tickbox.checked) chosen.add(column.key); else chosen.delete(column.key);
        table.set({ cols: [...table.columns().map((each) => each.key).filter((each) => chosen.has(each)), ...[...chosen].filter((each) => !table.columns().some((other) => other.key === each))] });
      });
      label.append(tickbox, element("span", "", column.title), column.setting ? element("small", "wb-key", column.key) : "");
      label.title = column.help || "";
      return label;
    };
    search.addEventListener("input", list);
    list();
    const usualOnes = button("The usual columns", () => { table.set({ cols: [] }); close(); });
    dialog("Columns", [search, box], [usualOnes], "wb-rt-wide").querySelector(".wb-rt-dialog-can button:last-child").textContent = "Done";
  }

  function askTrash() {
    const told = table.told(), total = told.trash.reduce((sum, each) => sum + each.bytes, 0), n = told.trash.length, locked = table.monitor().readOnly?.();
    if (!n) { dialog("Trash", [element("p", "wb-muted", "The trash is empty. What you delete lies here until you empty it.")], []); return; }
    const list = element("ul", "wb-rt-trash");
    list.append(...told.trash.map((each) => {
      const item = element("li"), when = document.createElement("wb-when");
      when.setAttribute("at", String(Math.round(each.time)));
      when.append(element("time"));
      const back = button("Restore", () => restore(each), "wb-small");
      back.disabled = Boolean(locked);
      back.setAttribute("aria-label", `Restore ${each.name}`);
      const facts = element("span", "wb-muted", `${rt.bytes(each.bytes)}, deleted `);
      facts.append(when);
      item.append(element("b", "", each.name), facts, back);
      return item;
    }));
    const empty = button("Empty trash …", () => {
      const yes = button("Remove for good", () => act("empty", []), "wb-mon-button wb-rt-danger");
      dialog("Empty the trash?", [element("p", "", `${n === 1 ? "1 run" : `${n} runs`}, ${rt.bytes(total)}, ${n === 1 ? "is" : "are"} removed for good. This cannot be undone.`)], [yes]);
    }, "wb-mon-button wb-rt-danger");
    empty.disabled = Boolean(locked);
    dialog("Trash", [element("p", "wb-muted", `${n === 1 ? "1 run" : `${n} runs`}, ${rt.bytes(total)}`), list], [empty]).querySelector(".wb-rt-dialog-can button:last-child").textContent = "Close";
  }

  function restore(each) {
    if (!table.rows().some((row) => row.name === each.name)) { act("restore", [each.entry]); return; }
    const form = element("form"), field = element("input"), name = element("label", "", "Name to restore it under");
    field.type = "text";
    field.value = `${each.name}-restored`.slice(0, 64);
    field.dataset.first = "";
    name.append(field);
    form.append(name);
    const send = () => act("restore", [each.entry], field.value);
    form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
    dialog("Another run has this name", [element("p", "", `There is a run ${each.name} again.`), form], [button("Restore", send)]);
  }

  function ask(what, names) {
    if (what === "delete") askDelete(names); else if (WORDS[what]) askWord(what, names); else act(what, names);
  }

  return { bulk, answered, ask, askDelete, askColumns, askTrash, close };
};
