// The editor of a mixture: a list of sources with a bar of their shares. Its text lies in a field of the form, which
// fills it and is filled by it; see mix_editor.py.
window.workbench.mixture = (() => {
  "use strict";
  const WRITE_MS = 350; // after the last key
  const { another, keyed, moved, nameOf, percent, range, shares, toml, weightsOf } = window.workbench.shares;
  let editor = null; // there is one form
  let problems = {}, usual = ""; // by number of the source; the preset's own source

  const { el, button } = window.workbench.elements;
  const colour = (number) => `var(--wb-run-${(number % 12) + 1})`;

  function mount({ element, props, server, watch, trigger, options }) {
    editor = { element, props, server, trigger, options, root: element.querySelector(".wb-mix"), sources: [], text: "[]", timer: 0, turn: 0 };
    editor.root.addEventListener("focusout", () => editor.send?.()); // before what is pressed next, which may be Start
    watch("value", () => { if (typeof props.value?.text === "string") fill(props.value.text); });
    draw();
  }

  // The field's text came from elsewhere: a preset, a file, a run, a reload.
  async function fill(text) {
    if (text === editor.text || (text.trim() || "[]") === editor.text) return;
    const turn = ++editor.turn;
    clearTimeout(editor.timer);
    editor.send = null;
    const found = await editor.server.mix_entries(text).catch(() => null);
    if (!found || turn !== editor.turn) return;
    editor.text = text;
    editor.unread = found.unread;
    editor.sources = found.sources.map((source) => ({ weight: "1.0", ...source, own: true }));
    draw();
  }

  // ---- what is written

  function write(now = false, more = {}) {
    clearTimeout(editor.timer);
    editor.turn++;
    const send = () => {
      editor.text = editor.sources.length ? toml(editor.sources) : "[]";
      editor.props.value = { text: editor.text, ...more };
      editor.trigger("edited");
    };
    editor.send = () => { editor.send = null; clearTimeout(editor.timer); send(); };
    if (now) editor.send(); else editor.timer = setTimeout(editor.send, WRITE_MS);
  }

  // Values of the fields that an edit writes: the mixture, the one source, and what of its settings has a field.
  function written(asked, [, source, ...own]) {
    if (asked?.alone) return [asked.text, asked.alone.source || source, ...own.map((text, i) => asked.alone[editor.options.own[i]] || text)];
    return [asked?.text ?? "[]", asked?.usual ?? source, ...own];
  }

  function begin() {
    const source = document.getElementById(editor.options.source)?.querySelector("textarea, input")?.value.trim() || usual;
    const name = nameOf(source);
    editor.sources = [{ name, source, weight: "0.5" }, { name: nameOf("", [name]), source: "", weight: "0.5", fresh: true }];
    write(true, { usual: usual || source });
    draw(1, "source");
  }

  function back() {
    const first = editor.sources[0] || { source: usual };
    editor.sources = [];
    editor.unread = false;
    write(true, { alone: first });
    draw();
    editor.root.querySelector("button")?.focus();
  }

  function add() {
    const weights = weightsOf(editor.sources.map((source) => source.weight));
    const name = nameOf("", editor.sources.map((source) => source.name));
    editor.sources.push({ name, source: "", weight: String(another(weights)), fresh: true });
    write(true);
    draw(editor.sources.length - 1, "source");
  }

  function remove(number) {
    editor.sources.splice(number, 1);
    write(true);
    draw(Math.min(number, editor.sources.length - 1), "name");
  }

  function take(number, source) { // typed, chosen or dropped
    const one = editor.sources[number];
    one.source = source;
    one.fresh = false;
    if (!one.own) {
      one.name = nameOf(source, editor.sources.filter((other) => other !== one).map((other) => other.name));
      rowOf(number).querySelector("[data-key=name]").value = one.name;
    }
    stale(number);
    labels();
  }

  function stale(number) { // what is said of the source as it was goes at once
    const place = rowOf(number).querySelector("[data-live]");
    place.replaceChildren();
    place.live = false;
  }

  // ---- what is seen

  const rowOf = (number) => editor.root.querySelectorAll(".wb-mix-one")[number];

  function draw(focusOn = null, key = "name") {
    const { root, sources, options } = editor;
    if (!sources.length) {
      root.replaceChildren(...(editor.unread ? [el("p", { textContent: "This mixture cannot be read." }), button("Back to one source", back, { className: "wb-link" })]
        : [button("Mix several sources", begin, { className: "wb-link wb-mix-begin" })]));
      return;
    }
    const head = el("div", { className: "wb-mix-head" }, el("h4", { textContent: "Mixture" }), button("Back to one source", back, { className: "wb-link" }));
    editor.bar = el("div", { className: "wb-mix-bar", role: "group", "aria-label": "Shares of the tokens" });
    const list = el("ol", { className: "wb-mix-list" }, ...sources.map((_, number) => row(number)));
    const more = button("Add a source", add, { className: "wb-small wb-mix-add", disabled: sources.length >= options.most_sources });
    root.replaceChildren(head, editor.bar, list, more);
    bar();
    labels();
    tell();
    window.workbench.live?.ask("source");
    if (focusOn !== null) rowOf(focusOn)?.querySelector(`[data-key=${key}]`)?.focus();
  }

  function field(number, key, label, more = {}) {
    const input = el("input", { type: "text", value: editor.sources[number][key] ?? "", autocomplete: "off", spellcheck: false, maxLength: 4096, ...more });
    input.dataset.key = key;
    input.addEventListener("input", () => {
      const one = editor.sources[number];
      one[key] = input.value;
      if (key === "name") one.own = true;
      if (key === "source") take(number, input.value.trim()); else if (key !== "weight") stale(number);
      if (key === "weight") bar();
      labels();
      write();
    });
    return el("label", { className: `wb-mix-${key}` }, el("span", { textContent: label }), input);
  }

  function row(number) {
    const { options, sources } = editor;
    const source = el("div", { className: "wb-mix-source-field" }, field(number, "source", "Text", { placeholder: "pydocs, owner/name, file or folder" }));
    const made = el("li", { className: "wb-mix-one" },
      el("div", { className: "wb-mix-row" },
        el("span", { className: "wb-mix-dot", "aria-hidden": "true" }), field(number, "name", "Name"), source,
        field(number, "weight", "Weight", { inputMode: "decimal" }), el("output", { className: "wb-mix-share" }),
        button("Remove", () => remove(number), { className: "wb-small wb-mix-remove", disabled: sources.length < 2 })),
      el("div", { className: "wb-mix-problems", role: "alert" }));
    made.querySelector(".wb-mix-dot").style.background = colour(number);
    const look = el("div", { className: "wb-mix-look" });
    look.dataset.live = `source.look-${number}`;
    const set = options.fields.some(({ key }) => sources[number][key]);
    made.append(look, el("details", { className: "wb-mix-more", open: set }, el("summary", { textContent: "More" }),
      el("div", { className: "wb-mix-fields" }, ...options.fields.map(({ key, title, help, empty }) => field(number, key, title, { placeholder: empty, title: help })))));
    source.querySelector("input").addEventListener("focusout", (event) => {
      if (source.contains(event.relatedTarget)) return; // the button to browse
      queueMicrotask(() => missed(sources[number])); // after a drawing that takes the field away
    });
    window.workbench.picker.lend(editor, source, ({ value }) => {
      source.querySelector("input").value = value;
      take(number, value);
      write(true);
    });
    return made;
  }

  function labels() { // names change as they are typed
    const { sources } = editor;
    const weights = weightsOf(sources.map((source) => source.weight)), each = weights && shares(weights);
    sources.forEach((source, number) => {
      const of = source.name || `source ${number + 1}`, own = rowOf(number);
      own.querySelector(".wb-mix-share").textContent = each ? percent(each[number]) : "";
      own.querySelector(".wb-mix-remove").setAttribute("aria-label", `Remove ${of}`);
      own.querySelector(".wb-pick")?.setAttribute("aria-label", `Browse for ${of}`);
      own.querySelector(".wb-mix-more > summary").setAttribute("aria-label", `More of ${of}`);
      for (const input of own.querySelectorAll("input[data-key]")) {
        input.setAttribute("aria-label", `${input.parentElement.firstChild.textContent} of ${of}`);
      }
      const handle = editor.bar.querySelector(`[data-at="${number}"]`);
      const next = sources[number + 1];
      if (handle && each) {
        handle.setAttribute("aria-label", `Share of ${of}, against ${next.name || `source ${number + 2}`}`);
        handle.setAttribute("aria-valuetext", `${of} ${percent(each[number])}, ${next.name} ${percent(each[number + 1])}`);
        const [least, most, now] = range(weights, number);
        for (const [name, value] of Object.entries({ valuemin: least, valuemax: most, valuenow: now })) handle.setAttribute(`aria-${name}`, String(value));
      }
    });
  }

  // The bar is one piece a source, with a separator after each but the last.
  function bar() {
    const { sources } = editor, weights = weightsOf(sources.map((source) => source.weight));
    editor.bar.hidden = !weights;
    if (!weights) { editor.bar.replaceChildren(); return; }
    if (editor.bar.children.length !== 2 * sources.length - 1) {
      editor.bar.replaceChildren(...sources.flatMap((_, number) => {
        const piece = el("span", { className: "wb-mix-piece" });
        piece.style.background = colour(number);
        return number < sources.length - 1 ? [piece, separator(number)] : [piece];
      }));
    }
    const pieces = editor.bar.querySelectorAll(".wb-mix-piece");
    shares(weights).forEach((share, number) => { pieces[number].style.flexGrow = share; pieces[number].title = `${sources[number].name} ${percent(share)}`; });
  }

  function set(weights, now) {
    weights.forEach((weight, number) => {
      if (Number(editor.sources[number].weight) === weight) return;
      editor.sources[number].weight = String(weight);
      rowOf(number).querySelector("[data-key=weight]").value = String(weight);
    });
    bar();
    labels();
    write(now);
  }

  function separator(number) {
    const handle = el("span", { className: "wb-mix-handle", role: "slider", tabIndex: 0, "aria-orientation": "horizontal" });
    handle.dataset.at = number;
    const present = () => weightsOf(editor.sources.map((source) => source.weight));
    handle.addEventListener("keydown", (event) => {
      const next = present() && keyed(present(), number, event.key);
      if (next) { event.preventDefault(); set(next, false); }
    });
    handle.addEventListener("pointerdown", (event) => {
      const from = present();
      if (!from || event.button > 0) return;
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      const start = event.clientX, { width } = editor.bar.getBoundingClientRect();
      const drag = (at) => set(moved(from, number, (at.clientX - start) / width), false);
      const end = () => {
        handle.removeEventListener("pointermove", drag);
        for (const kind of ["pointerup", "pointercancel"]) handle.removeEventListener(kind, end);
        write(true);
      };
      handle.addEventListener("pointermove", drag);
      for (const kind of ["pointerup", "pointercancel"]) handle.addEventListener(kind, end);
    });
    return handle;
  }

  // What the server says: `sources` of a form's answer, by number from 0, and the source that the preset has.
  function told({ sources, usual: own }) {
    problems = sources || {};
    usual = own || usual;
    if (editor?.sources.length) tell();
  }

  // Which field of a source a message is about: the one that it begins with, or its text.
  function keyOf(line) {
    const key = line.includes("max_epochs") ? "max_epochs" : /^([a-z_]+) (?:=|is missing)/.exec(line)?.[1];
    return editor.options.fields.some((field) => field.key === key) || ["name", "weight"].includes(key) ? key : "source";
  }

  // A new source has no text yet: until its field was left, or Start was tried, that is no mistake, and what is said a hint.
  function missed(...sources) {
    const fresh = sources.filter((source) => source?.fresh);
    for (const source of fresh) source.fresh = false;
    if (fresh.length) tell();
  }
  document.addEventListener("pointerdown", ({ target }) => {
    if (editor && target.closest?.("#train-start, #train-queue-up, #train-reasons")) missed(...editor.sources);
  });

  function tell() {
    editor.sources.forEach((source, number) => {
      const place = rowOf(number).querySelector(".wb-mix-problems"), lines = problems[number] || [];
      const hint = (line) => source.fresh && keyOf(line) === "source";
      if (place.textContent !== lines.join("")) place.replaceChildren(...lines.map((line) => el("p", { textContent: line })));
      [...place.children].forEach((line, i) => line.classList.toggle("wb-mix-hint", Boolean(hint(lines[i]))));
      const wrong = lines.filter((line) => !hint(line)).map(keyOf);
      rowOf(number).classList.toggle("wb-mix-wrong", wrong.length > 0);
      for (const input of rowOf(number).querySelectorAll("input[data-key]")) {
        const is = wrong.includes(input.dataset.key);
        if (is) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
        if (is && input.closest("details")) input.closest("details").open = true;
      }
    });
  }

  return { mount, written, told };
})();
