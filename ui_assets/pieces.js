// The pieces of html.py that need a script: menus and times; and elements that scripts make.

// Elements made by scripts: el(tag, properties, ...children), of which those with a dash and the role are attributes, and
// button(text, what a click does, properties).
window.workbench.elements = (() => {
  "use strict";
  const el = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(properties)) if (name.includes("-") || name === "role") made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const button = (text, act, properties = {}) => {
    const made = el("button", { type: "button", textContent: text, ...properties });
    made.addEventListener("click", act);
    return made;
  };
  return { el, button };
})();

// What floats below its button goes along when the page scrolls, which it may have begun before the click; it closes
// when the button has left what can be seen. floats: the open <details>; place, close: of one of them.
window.workbench.follow = (floats, place, close) => {
  "use strict";
  const seen = (button, area) => button.bottom > Math.max(0, area.top) && button.top < Math.min(window.innerHeight, area.bottom);
  for (const kind of ["scroll", "resize"]) {
    window.addEventListener(kind, ({ target }) => {
      const whole = !target.getBoundingClientRect; // the document or the window
      for (const float of floats()) { // of what it stands in: a log that follows its end moves none
        if (!whole && (target === float || !target.contains(float))) continue;
        const area = whole ? { top: 0, bottom: window.innerHeight } : target.getBoundingClientRect();
        if (seen(float.querySelector("summary").getBoundingClientRect(), area)) place(float);
        else close(float, float.contains(document.activeElement));
      }
    }, { capture: true, passive: true });
  }
};

// html.menu: <details class="wb-menu"> with a list of items, placed below its button or above it.
(() => {
  "use strict";
  const GAP = 4; // pixels between a button and its list
  const listOf = (menu) => menu.querySelector(".wb-menu-list");
  const items = (menu) => [...listOf(menu).querySelectorAll(".wb-item")].filter((item) => !item.disabled && !item.hidden);
  const open = () => document.querySelectorAll("details.wb-menu[open]");

  function place(menu) {
    const list = listOf(menu), { top, bottom, left, right } = menu.querySelector("summary").getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = list;
    const below = bottom + GAP + height <= window.innerHeight || top < window.innerHeight - bottom;
    const from = left + width <= window.innerWidth - GAP ? left : right - width;
    list.style.left = `${Math.max(GAP, from)}px`;
    list.style.top = `${below ? bottom + GAP : Math.max(GAP, top - GAP - height)}px`;
  }

  function close(menu, back) {
    if (!menu.open) return;
    menu.open = false;
    if (back) menu.querySelector("summary").focus({ preventScroll: true });
  }

  // An item may press a button of Gradio's: it can be used when that can.
  function fit(menu) {
    for (const item of listOf(menu).querySelectorAll("[data-press]")) {
      const button = document.getElementById(item.dataset.press);
      item.hidden = !button;
      item.disabled = Boolean(button?.disabled);
    }
  }

  document.addEventListener("toggle", (event) => { // before the list is painted at its old place
    const menu = event.target;
    if (!menu.matches?.("details.wb-menu") || !menu.open) return;
    for (const other of open()) if (other !== menu) close(other);
    fit(menu);
    place(menu);
    items(menu)[0]?.focus({ preventScroll: true });
  }, { capture: true });

  document.addEventListener("click", (event) => {
    const item = event.target.closest?.(".wb-menu .wb-item");
    for (const menu of open()) if (item || !menu.contains(event.target)) close(menu, menu.contains(item));
    if (item?.dataset.press) document.getElementById(item.dataset.press)?.click();
  });

  document.addEventListener("keydown", (event) => {
    const menu = event.target.closest?.("details.wb-menu");
    if (!menu) return;
    const summary = menu.querySelector("summary");
    if (!menu.open) {
      if (event.key === "ArrowDown" && event.target === summary) { event.preventDefault(); menu.open = true; }
      return;
    }
    const all = items(menu), at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) { event.preventDefault(); all.at(to % all.length)?.focus(); }
    else if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); close(menu, true); }
    else if (event.key === "Tab") close(menu, true); // and from there to what comes next
  });

  window.workbench.follow(open, place, close);
})();

// html.when: <wb-when at="seconds since 1970"><time>. One timer for all, at the next minute, while the page is seen.
(() => {
  "use strict";
  const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  const MINUTE = 60, HOUR = 3600, DAY = 86400; // seconds
  const two = (number) => String(number).padStart(2, "0");
  const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;

  function exact(date) {
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date)}`;
  }

  // `at`, `now`: seconds since 1970.
  function ago(at, now) {
    const passed = now - at, date = new Date(1000 * at);
    if (passed > -MINUTE && passed < MINUTE) return "just now";
    if (passed > 0 && passed < HOUR) return `${Math.floor(passed / MINUTE)} min ago`;
    if (passed > 0 && passed < DAY) return `${Math.floor(passed / HOUR)} h ago`;
    const year = date.getFullYear() === new Date(1000 * now).getFullYear() ? "" : ` ${date.getFullYear()}`;
    return `${date.getDate()} ${MONTHS[date.getMonth()]}${year}, ${clock(date)}`;
  }

  const shown = new Set();
  let timer = 0;

  function write(element, now) {
    const at = Number(element.getAttribute("at")), text = element.querySelector("time");
    if (!text || !Number.isFinite(at)) return;
    const date = new Date(1000 * at), words = element.hasAttribute("exact") ? exact(date) : ago(at, now);
    if (text.textContent !== words) text.textContent = words;
    text.title = `${exact(date)}:${two(date.getSeconds())}`;
  }

  function tick() {
    clearTimeout(timer);
    timer = 0;
    if (document.hidden) return;
    const now = Date.now() / 1000;
    let young = false;
    for (const element of shown) {
      write(element, now);
      young ||= !element.hasAttribute("exact") && now - Number(element.getAttribute("at")) < DAY;
    }
    if (young) timer = setTimeout(tick, 1000 * MINUTE / 2);
  }

  if (window.customElements) {
    window.customElements.define("wb-when", class extends window.HTMLElement {
      static observedAttributes = ["at", "exact"];
      connectedCallback() { shown.add(this); write(this, Date.now() / 1000); if (!timer) timer = setTimeout(tick, 1000 * MINUTE / 2); }
      disconnectedCallback() { shown.delete(this); }
      attributeChangedCallback() { if (shown.has(this)) write(this, Date.now() / 1000); }
    });
    document.addEventListener("visibilitychange", tick);
  }

  // As html.when makes it, for what is drawn in the browser. `at`: seconds since 1970.
  function element(at) {
    const made = document.createElement("wb-when"), time = document.createElement("time");
    made.setAttribute("at", String(Math.round(at)));
    time.dateTime = new Date(1000 * at).toISOString();
    made.append(time);
    return made;
  }

  window.workbench.times = { ago, exact, element };
})();
