// Which of the eight run colours a run has: its own, wherever it is shown.

const COLOURS = "workbench-run-colours";

// A run keeps its colour, whoever else is shown: its own number, or the next that is free among the runs shown.
export function assignColours(names, known = {}) {
  const found = new Map();
  const taken = new Set();
  const place = (name, wanted) => {
    let index = wanted;
    while (taken.has(index)) index = (index % 8) + 1;
    taken.add(index);
    found.set(name, index);
  };
  for (const name of names) if (known[name] && !taken.has(known[name])) place(name, known[name]);
  for (const name of names) if (!found.has(name)) place(name, hash(name));
  return found;
}

function hash(name) {
  let value = 2166136261;
  for (let i = 0; i < name.length; i++) value = Math.imul(value ^ name.charCodeAt(i), 16777619) >>> 0;
  return ((value ^ (value >>> 15)) >>> 0) % 8 + 1;
}

export function stored() {
  try { return JSON.parse(localStorage.getItem(COLOURS) || "{}"); } catch { return {}; }
}

export function remember(colours) {
  const all = Object.entries({ ...stored(), ...Object.fromEntries(colours) }).slice(-500);
  try { localStorage.setItem(COLOURS, JSON.stringify(Object.fromEntries(all))); } catch { /* a private window */ }
}
