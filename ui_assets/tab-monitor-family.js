// Families of runs: a branch stands below the run it came from, in the order in which the list has them otherwise.
window.workbench.families = (() => {
  "use strict";

  // [{ row, depth }] of rows in their order. A family stands at the place of its first member; a branch whose parent is
  // not among the rows, or that names itself by way of others, stands by itself.
  function tree(rows, alone = () => false) {
    const by = new Map(rows.map((row) => [row.name, row]));
    const parent = (row) => (row.parent && row.parent !== row.name && by.has(row.parent) && !alone(row) && !alone(by.get(row.parent)) ? by.get(row.parent) : null);
    const below = new Map(), found = [], seen = new Set();
    for (const row of rows) { const over = parent(row); if (over) { if (!below.has(over.name)) below.set(over.name, []); below.get(over.name).push(row); } }
    const top = (row) => { const passed = new Set(); let at = row; while (parent(at) && !passed.has(at.name)) { passed.add(at.name); at = parent(at); } return at; };
    const add = (row, depth) => {
      if (seen.has(row.name)) return;
      seen.add(row.name);
      found.push({ row, depth });
      for (const each of below.get(row.name) || []) add(each, depth + 1);
    };
    for (const row of rows) if (!seen.has(row.name)) add(top(row), 0);
    return found;
  }

  return { tree };
})();
