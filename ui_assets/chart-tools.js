// The chart's own controls: one line, and a menu for what is rarely used. Plain HTML with labels; no round trip.

const version = new URL(import.meta.url).search;
const { sourcesOf, unitOf, UNITS } = await import(`./chart-curves.js${version}`);
const { number } = await import(`./chart-look.js${version}`);
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
export function toolbar(options, change, act) {
  const id = `wb-chart-${++count}`;
  const field = (name, label, input, kind = null) => make("span", { class: "wb-chart-field" }, make("label", { for: `${id}-${name}`, class: kind }, label), input);
  const flag = (name, label, title) => {
    const input = make("input", { type: "checkbox", id: `${id}-${name}`, onchange: () => change({ [name]: input.checked }) });
    return { input, element: make("span", { class: "wb-chart-field", title }, input, make("label", { for: `${id}-${name}` }, label)) };
  };
  const choice = (name, made, ...items) => {
    const select = make("select", { id: `${id}-${name}`, onchange: () => change(made(select.value)) },
      ...items.map(([value, text]) => make("option", { value }, text)));
    return select;
  };
  const button = (label, run, more = {}) => make("button", { type: "button", onclick: run, ...more }, label);
  const x = choice("x", (value) => ({ x: value }), ...Object.entries(options.axes).map(([value, axis]) => [value, axis.name]));
  // What would be chosen anyway is no choice: the address stays short, and other runs may have another unit.
  const unit = choice("unit", (value) => ({ unit: value === unit.dataset.auto ? "auto" : value }), ...Object.entries(UNITS).map(([value, words]) => [value, words.replace(" per ", "/")]));
  const minus = choice("minus", (value) => ({ minus: value }));
  const smooth = make("input", { type: "range", id: `${id}-smooth`, min: 0, max: STOPS.length - 1, step: 1,
    oninput: () => change({ smooth: STOPS[smooth.value] }) });
  const smoothText = make("output", { for: `${id}-smooth` });
  const auto = make("input", { type: "checkbox", id: `${id}-auto`, onchange: () => change({ smooth: auto.checked ? "auto" : STOPS[smooth.value] }) });
  const flags = { logx: flag("logx", "log x"), logy: flag("logy", "log y", "of losses and the gradient norm"),
    follow: flag("follow", "Follow the newest step when zoomed"), band: flag("band", "Band of the preset") };
  const reset = button("Reset zoom", () => act.reset());
  const panels = Object.entries(options.panels).map(([name, panel]) => {
    const input = make("input", { type: "checkbox", id: `${id}-panel-${name}`, value: name,
      onchange: () => change({ panels: panels.filter((one) => one.input.checked).map((one) => one.input.value) }) });
    return { input, element: make("span", { class: "wb-chart-field" }, input, make("label", { for: input.id }, panel.title)) };
  });
  const menu = (label, ...children) => make("details", { class: "wb-chart-menu" }, make("summary", {}, label), make("div", {}, ...children));
  const element = make("div", { class: "wb-chart-tools", role: "group", "aria-label": "Chart settings" },
    field("x", "x axis", x, "wb-chart-unseen"), flags.logx.element, flags.logy.element,
    make("span", { class: "wb-chart-field wb-chart-smooth" }, make("label", { for: `${id}-smooth` }, "smoothing"), smooth, smoothText,
      auto, make("label", { for: `${id}-auto`, title: "a width that goes with the steps in sight" }, "auto")),
    field("unit", "loss in", unit, "wb-chart-unseen"), field("minus", "minus", minus, "wb-chart-unseen"), reset,
    make("span", { class: "wb-chart-end" }, menu("Export", ...["PNG", "SVG", "CSV"].map((kind) => button(kind, () => act.save(kind), {
      title: kind === "CSV" ? "every point of the shown runs" : "the curves as they are on screen" }))),
    menu("More", make("fieldset", {}, make("legend", {}, "Panels"), ...panels.map((panel) => panel.element)), flags.follow.element, flags.band.element,
      make("span", { class: "wb-chart-buttons" }, button("Zoom in", () => act.zoom(0.5)), button("Zoom out", () => act.zoom(2))))));
  for (const details of element.querySelectorAll("details")) {
    details.addEventListener("keydown", (event) => { if (event.key === "Escape") { details.open = false; details.firstChild.focus(); } });
    details.addEventListener("focusout", (event) => { if (event.relatedTarget && !details.contains(event.relatedTarget)) details.open = false; });
    document.addEventListener("pointerdown", (event) => { if (details.open && !details.contains(event.target)) details.open = false; });
  }
  // `width`: of smoothing, in steps.
  const show = (state, width) => {
    const { view } = state;
    x.value = view.x;
    smooth.value = stopOf(width);
    auto.checked = view.smooth === "auto";
    smooth.setAttribute("aria-valuetext", smoothWords(view.smooth, width));
    smoothText.textContent = smoothWords(view.smooth, width).replace(/^auto \((.*)\)$/, "$1");
    for (const [name, control] of Object.entries(flags)) control.input.checked = view[name];
    flags.band.element.hidden = !state.shown.some((series) => series.band);
    for (const panel of panels) {
      panel.input.checked = view.panels.includes(panel.input.value);
      panel.element.hidden = Boolean(options.panels[panel.input.value].sources) && !sourcesOf(state).length;
    }
    unit.dataset.auto = unitOf({ ...state, shown: state.shown, series: state.series, view: { ...view, unit: "auto" } });
    unit.value = unitOf(state);
    const names = ["", ...view.runs];
    if (names.join() !== [...minus.options].map((option) => option.value).join()) {
      minus.replaceChildren(...names.map((name) => make("option", { value: name }, name ? `minus ${name}` : "minus nothing")));
    }
    minus.value = view.minus;
    minus.parentElement.hidden = view.runs.length < 2;
    reset.hidden = !view.range;
  };
  return { element, show };
}
