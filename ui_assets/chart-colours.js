// Which of the eight run colours a run has: its own, wherever it is shown.

// A run has the colour of its name, or the next that is free among the runs shown; while it is shown it keeps that
// (`known`). Nothing else decides, so that one link has the same colours in every browser.
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
