// The arithmetic of a mixture's shares, and its text in TOML's notation. Pure functions; tab-train-mixture.js has the editor.
window.workbench.shares = (() => {
  "use strict";
  const LEAST = 0.01; // of the whole, that a separator leaves to either side
  const STEPS = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 };
  const NUMBERS = ["weight", "max_epochs", "min_score"];
  const NUMBER = /^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$/;
  const KEYS = ["name", "source", "weight", "max_epochs", "text_column", "min_score", "score_column", "language", "language_column"];

  const sum = (weights) => weights.reduce((total, weight) => total + weight, 0);
  const tidy = (value) => Number(value.toPrecision(10)); // 0.30000000000000004 is 0.3

  // Weights of text; null where one is no weight.
  function weightsOf(texts) {
    const found = texts.map((text) => (NUMBER.test(String(text).trim()) ? Number(text) : NaN));
    return found.every((weight) => weight > 0 && weight <= 1e9) ? found : null;
  }

  const shares = (weights) => weights.map((weight) => weight / sum(weights));

  // The weights once the separator behind source `at` was moved by the share `by`, to a whole percent. The two beside it
  // change, and what all are together does not.
  function moved(weights, at, by) {
    const total = sum(weights), pair = weights[at] + weights[at + 1];
    const least = Math.min(LEAST * total, pair / 2);
    const wanted = Math.round(((weights[at] / total) + by) * 100) / 100 * total;
    if (by === 0) return weights;
    const left = tidy(Math.min(Math.max(wanted, least), pair - least));
    return weights.map((weight, i) => (i === at ? left : i === at + 1 ? tidy(pair - left) : weight));
  }

  // What a key does to the separator behind source `at`; null for a key that does nothing.
  const keyed = (weights, at, key) => (key in STEPS ? moved(weights, at, STEPS[key]) : null);

  // Least, greatest and present share left of a separator of the two beside it, in percent.
  function range(weights, at) {
    const total = sum(weights), pair = weights[at] + weights[at + 1], least = Math.min(LEAST * total, pair / 2);
    return [least, pair - least, weights[at]].map((weight) => tidy(100 * weight / total));
  }

  // The weight of one more source: the mean of the others, so that all have an equal share if they had it before.
  const another = (weights) => (weights?.length ? tidy(sum(weights) / weights.length) : 1);

  const percent = (share) => `${Number((100 * share).toPrecision(3))} %`;

  function value(key, text) {
    if (NUMBERS.includes(key) && NUMBER.test(text.trim())) {
      const number = Number(text);
      return Number.isInteger(number) && Math.abs(number) < 1e15 ? number.toFixed(1) : String(number); // as the engine writes floats
    }
    return JSON.stringify(text).replaceAll("\x7f", "\\u007f");
  }

  // Sources, each with texts by key, as `data.mix` takes them. What is empty is unset; these three never are.
  function toml(sources) {
    const table = (source) => KEYS.filter((key) => source[key] || ["name", "source", "weight"].includes(key))
      .map((key) => `${key} = ${value(key, String(source[key] ?? ""))}`).join(", ");
    return `[${sources.map((source) => `{${table(source)}}`).join(", ")}]`;
  }

  // What a source is called after: its file or folder, or the set's name on the hub; other than `taken`.
  function nameOf(source, taken = []) {
    const last = source.split("/").filter(Boolean).at(-1) || "";
    const stem = last.replace(/[:@].*$/, "").replace(/(\.(jsonl|txt|parquet|bin|npy|gz|zst))+$/i, "");
    const plain = stem.replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 28) || "source";
    if (plain !== "source" && !taken.includes(plain)) return plain;
    for (let number = plain === "source" ? taken.length + 1 : 2; ; number++) if (!taken.includes(`${plain}-${number}`)) return `${plain}-${number}`;
  }

  return { weightsOf, shares, moved, keyed, range, another, percent, toml, nameOf };
})();
