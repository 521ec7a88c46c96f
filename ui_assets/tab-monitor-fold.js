// The arms of an experiment as one line of Monitor's list, until it is opened. Nothing here touches the page but `item`.
window.workbench.folds = (() => {
  "use strict";

  // Lines in the order of the names: {name} of a run, {group, names, open} in the place of an experiment's first run.
  // Runs of `keep` are shown also where their experiment is folded: they are looked at.
  function lines(names, groupOf, experiments, opened, keep) {
    const folded = (name) => (experiments.includes(groupOf(name)) ? groupOf(name) : "");
    const members = new Map();
    for (const name of names) if (folded(name)) members.set(folded(name), [...(members.get(folded(name)) || []), name]);
    const found = [], seen = new Set();
    for (const name of names) {
      const group = folded(name);
      if (!group || members.get(group).length < 2) { found.push({ name }); continue; }
      if (seen.has(group)) continue;
      seen.add(group);
      const open = opened.has(group), own = members.get(group);
      found.push({ group, names: own, open }, ...own.filter((each) => open || keep.includes(each)).map((each) => ({ name: each, within: true })));
    }
    return found;
  }

  function item(document, group, toggle) {
    const made = document.createElement("li"), fold = document.createElement("button"), open = document.createElement("button");
    made.className = "wb-run wb-run-group";
    for (const button of [fold, open]) button.type = "button";
    fold.className = "wb-run-open";
    fold.addEventListener("click", () => toggle(group));
    open.className = "wb-small";
    open.textContent = "Experiment";
    open.setAttribute("aria-label", `Open experiment ${group}`);
    open.addEventListener("click", () => window.workbench.experiments.go(`name ${group}`));
    made.append(fold, open);
    return made;
  }

  function fill(made, line, states) {
    const fold = made.querySelector("button"), counts = new Map();
    for (const state of states) counts.set(state, (counts.get(state) || 0) + 1);
    const told = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
    const text = `${line.open ? "▾" : "▸"} ${line.group} · ${line.names.length} runs: ${told}`;
    if (fold.textContent !== text) fold.textContent = text;
    fold.setAttribute("aria-expanded", String(line.open));
  }

  return { lines, item, fill };
})();
