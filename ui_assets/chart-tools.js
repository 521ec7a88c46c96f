// The chart's own controls, its list of runs and what the cursor reads. Plain HTML with labels; no round trip.

const version = new URL(import.meta.url).search;
const { duration } = await import(`./chart-axes.js${version}`);
const { colourOf, dashOf, marksOf, number } = await import(`./chart-draw.js${version}`);
const { nearest } = await import(`./chart-series.js${version}`);
const { WIDTHS } = await import(`./chart-smooth.js${version}`);

let count = 0; // charts on the page, for ids that are unique

// An element with attributes, handlers ("onclick") and children; strings become text, never markup.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const STOPS = [0, ...WIDTHS]; // positions of the slider: off, then steps

export function smoothWords(smooth, width) {
  const steps = width > 1 ? `${number(width)} steps` : "off";
  return smooth === "auto" ? `auto (${steps})` : steps;
}

function stopOf(width) {
  return STOPS.reduce((best, stop, i) => (Math.abs(stop - width) < Math.abs(STOPS[best] - width) ? i : best), 0);
}

// change(keys): the person changed the view. act: zoom(factor), reset(), save(kind).
export function toolbar({ panels: known, axes }, change, act) {
  const id = `wb-chart-${++count}`;
  const field = (name, label, input) => make("span", { class: "wb-chart-field" }, make("label", { for: `${id}-${name}` }, label), input);
  const flag = (name, label, title) => {
    const input = make("input", { type: "checkbox", id: `${id}-${name}`, onchange: () => change({ [name]: input.checked }) });
    return { input, element: make("span", { class: "wb-chart-field", title }, input, make("label", { for: `${id}-${name}` }, label)) };
  };
  const x = make("select", { id: `${id}-x`, onchange: () => change({ x: x.value }) },
    ...Object.entries(axes).map(([value, axis]) => make("option", { value }, axis.name)));
  const minus = make("select", { id: `${id}-minus`, onchange: () => change({ minus: minus.value }) });
  const smooth = make("input", { type: "range", id: `${id}-smooth`, min: 0, max: STOPS.length - 1, step: 1,
    oninput: () => change({ smooth: STOPS[smooth.value] }) });
  const smoothText = make("output", { for: `${id}-smooth` });
  const auto = make("input", { type: "checkbox", id: `${id}-auto`, onchange: () => change({ smooth: auto.checked ? "auto" : STOPS[smooth.value] }) });
  const [logx, logy, follow] = [flag("logx", "log x"), flag("logy", "log y", "of losses and the gradient norm"),
    flag("follow", "follow", "a zoomed range moves along with the newest step")];
  const button = (label, run, more = {}) => make("button", { type: "button", onclick: run, ...more }, label);
  const panels = Object.entries(known).map(([name, panel]) => {
    const input = make("input", { type: "checkbox", id: `${id}-panel-${name}`, value: name,
      onchange: () => change({ panels: panels.filter((one) => one.input.checked).map((one) => one.input.value) }) });
    return { input, element: make("span", { class: "wb-chart-field" }, input, make("label", { for: input.id }, panel.title)) };
  });
  const menu = (label, ...children) => make("details", { class: "wb-chart-menu" }, make("summary", {}, label), make("div", {}, ...children));
  const element = make("div", { class: "wb-chart-tools", role: "group", "aria-label": "Chart settings" },
    field("x", "x axis", x), logx.element, logy.element,
    make("span", { class: "wb-chart-field" }, make("label", { for: `${id}-smooth` }, "smoothing"), smooth, smoothText,
      auto, make("label", { for: `${id}-auto`, title: "a width that goes with the steps in sight" }, "auto")),
    field("minus", "minus", minus), follow.element,
    make("span", { class: "wb-chart-buttons" }, button("−", () => act.zoom(2), { "aria-label": "Zoom out" }),
      button("+", () => act.zoom(0.5), { "aria-label": "Zoom in" }), button("Reset zoom", () => act.reset())),
    menu("Panels", ...panels.map((panel) => panel.element)),
    menu("Export", ...["PNG", "SVG", "CSV"].map((kind) => button(kind, () => act.save(kind), {
      title: kind === "CSV" ? "every point of the shown runs" : "the curves as they are on screen" }))));
  for (const details of element.querySelectorAll("details")) {
    details.addEventListener("keydown", (event) => { if (event.key === "Escape") { details.open = false; details.firstChild.focus(); } });
    details.addEventListener("focusout", (event) => { if (!details.contains(event.relatedTarget)) details.open = false; });
  }
  // `width`: of smoothing, in steps.
  const show = (view, width) => {
    x.value = view.x;
    smooth.value = stopOf(width);
    auto.checked = view.smooth === "auto";
    smooth.setAttribute("aria-valuetext", smoothWords(view.smooth, width));
    smoothText.textContent = smoothWords(view.smooth, width);
    for (const [name, control] of Object.entries({ logx, logy, follow })) control.input.checked = view[name];
    for (const panel of panels) panel.input.checked = view.panels.includes(panel.input.value);
    const names = ["", ...view.runs];
    if (names.join() !== [...minus.options].map((option) => option.value).join()) {
      minus.replaceChildren(...names.map((name) => make("option", { value: name }, name || "nothing")));
    }
    minus.value = view.minus;
    minus.parentElement.hidden = view.runs.length < 2;
  };
  return { element, show };
}

// The runs with their colours, states and newest values.
export function legend(state) {
  return state.view.runs.map((name) => {
    const series = state.series.get(name);
    const last = series?.n ? `step ${series.step[series.n - 1].toLocaleString("en")}, loss ${number(series.values("loss")[series.n - 1])}` : "no step yet";
    const without = state.view.x === "flops" && series?.flops === null ? "FLOPs n/a: its configuration or tokenizer cannot be read" : null;
    const words = series?.problem || without || (series?.cursor ? `${series.state} · ${last}` : "loading");
    const swatch = swatchOf(state, name);
    return make("li", { class: series?.problem ? "wb-chart-problem" : null }, swatch, make("strong", {}, name), ` ${words}`);
  });
}

function swatchOf(state, run) {
  const swatch = make("span", { class: `wb-chart-swatch${dashOf(state, run) === "solid" ? "" : " wb-chart-dashed"}`, "aria-hidden": "true" });
  if (state.colours.get(run)) swatch.style.setProperty("--wb-chart-colour", colourOf(state, run));
  return swatch;
}

// What a screen reader hears of a panel: the newest value of every run.
export function spoken({ title, unit }, shown) {
  const values = shown.map(({ series, raw }) => {
    let at = raw.length - 1;
    while (at > 0 && !Number.isFinite(raw[at])) at--;
    return `${series.run} ${number(raw[at])}`;
  });
  return `${title}${unit ? ` in ${unit}` : ""}: ${values.length ? values.join("; ") : "no values yet"}`;
}

export function xWords(kind, value) {
  if (kind === "time") return duration(value);
  if (kind === "step") return `step ${Math.round(value).toLocaleString("en")}`;
  return kind === "tokens" ? `${Math.round(value).toLocaleString("en")} tokens` : `${value.toExponential(3)} FLOPs`;
}

// The rows of the box at the cursor: every run's own point nearest to x, exact and not what happens to be drawn.
export function reading(state, shown, x, near) {
  const rows = [];
  for (const { series, x: xs, steps, raw, smooth } of shown) {
    const at = nearest(xs, x);
    if (at < 0) continue;
    const place = xWords(state.view.x, xs[at]);
    rows.push({ series, at, step: steps[at], place, value: raw[at], words: number(raw[at]) + (smooth ? ` (${number(smooth[at])})` : "") });
  }
  const marks = state.shown.flatMap((series) => marksOf(state, series).filter((mark) => Math.abs(mark.x - x) <= near)
    .slice(0, 3).map((mark) => `${series.run}: ${mark.kind === "alert" ? "alert: " : ""}${mark.text} at step ${mark.step.toLocaleString("en")}`));
  return { rows, marks: marks.slice(0, 5) };
}

// `picked`: the row whose step a click opens.
export function tip(state, { rows, marks }, picked = null) {
  const same = rows.every((row) => row.place === rows[0].place);
  return [
    make("p", {}, rows.length ? `${rows[0].place}${rows.some((row) => row.words.includes("(")) ? ": value (smoothed)" : ""}` : ""),
    ...rows.map((row) => {
      const swatch = swatchOf(state, row.series.run);
      return make("p", { class: rows.length > 1 && row === picked ? "wb-chart-picked" : null }, swatch, `${row.series.run} `, make("b", {}, row.words), same ? "" : ` at ${row.place}`);
    }),
    ...marks.map((text) => make("p", { class: "wb-chart-mark" }, text)),
    ...(picked && state.options.url ? [make("p", { class: "wb-chart-hint" }, `Click: what ${rows.length > 1 ? `${picked.series.run} ` : ""}read in step ${picked.step.toLocaleString("en")}`)] : []),
  ];
}
