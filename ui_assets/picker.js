// The picker: Browse beside a field, the panel it opens, and files brought along. One panel serves all fields.
window.workbench.picker = (() => {
  "use strict";
  const MOST_RECENT = 6, SEARCH_MS = 250, FORGET_MS = 250;
  let panel = null, parts = {}, open = null, asked = 0, timer = 0; // open: the field that the panel serves

  const { el, button } = window.workbench.elements;

  // ---- what was chosen lately, by kind

  function recent(kind) {
    try {
      const found = JSON.parse(window.localStorage.getItem(`workbench-recent-${kind}`) || "[]");
      return Array.isArray(found) ? found.filter((each) => typeof each?.value === "string") : [];
    } catch { return []; }
  }

  function remember(kind, { value, name }) {
    const kept = [{ value, name }, ...recent(kind).filter((each) => each.value !== value)].slice(0, MOST_RECENT);
    try { window.localStorage.setItem(`workbench-recent-${kind}`, JSON.stringify(kept)); } catch { /* a private window forgets */ }
  }

  // ---- numbers and names

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB"];
    let unit = 0;
    while (bytes >= 999.5 && unit < 3) { bytes /= 1000; unit += 1; }
    return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
  }

  // Why these files cannot be sent, or "". The server looks at each of them again.
  function refusal(files, options) {
    if (!options.uploads) return "This workbench is read only; nothing can be uploaded.";
    if (files.length > options.mostFiles) return `${files.length} files are too many at once; at most ${options.mostFiles} can be uploaded.`;
    const total = files.reduce((sum, file) => sum + file.size, 0);
    if (total > options.mostBytes) {
      return `${size(total)} is too much to upload; at most ${options.most} at once. Put it in one of the workbench's folders and choose it there.`;
    }
    const odd = files.find(({ name }) => !options.endings.some((ending) => name.toLowerCase().endsWith(ending)));
    if (odd) return `${odd.name} cannot be used here. Allowed: ${options.endings.join(", ")}. Otherwise ${options.advice}.`;
    return "";
  }

  // What several files together are called: the folder they came from, or how their names begin.
  function together(files, folder) {
    if (folder) return folder;
    let common = files[0]?.name || "";
    for (const { name } of files) while (!name.startsWith(common)) common = common.slice(0, -1);
    common = common.replace(/\.[^.]*$/, "").replace(/[-_. 0-9]+$/, "");
    return common.length > 1 ? common : "upload";
  }

  // ---- sending

  function send(field, files, folder = "") {
    const { options } = field;
    const wrong = files.length ? refusal(files, options) : "There is no file in it.";
    if (wrong) { field.tell(wrong, true); return; }
    if (field.sending) { field.tell("One upload is on its way already; wait for it, or cancel it.", true); return; }
    const batch = [...window.crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const total = files.reduce((sum, file) => sum + file.size, 0);
    const job = { request: null, cancelled: false, before: 0, total, began: Date.now(), words: "" }, was = held(field);
    field.sending = job;
    const address = (name) => {
      const found = new URL(`${options.address.slice(1)}${batch}`, document.baseURI);
      if (name !== undefined) { found.searchParams.set("kind", options.kind); found.searchParams.set("name", name); }
      return found;
    };
    const ask = (method, name, body) => new Promise((resolve, reject) => {
      const request = job.request = new XMLHttpRequest();
      request.open(method, address(name));
      request.setRequestHeader("x-workbench", "upload");
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.onprogress = (event) => { if (body) field.progress(job, job.before + event.loaded, name); };
      request.onload = () => {
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch { /* told below */ }
        if (request.status === 200) resolve(answer);
        else reject(new Error(answer.error || `The server answered ${request.status}; try again.`));
      };
      request.onerror = () => reject(new Error("The connection was lost, so nothing was kept. Try again."));
      request.onabort = () => reject(new Error(""));
      request.send(body || null);
    });
    const all = async () => {
      for (const file of files) {
        if (job.cancelled) throw new Error("");
        field.progress(job, job.before, file.name);
        await ask("PUT", file.name, file);
        job.before += file.size;
      }
      if (job.cancelled) throw new Error("");
      return ask("POST", together(files, folder));
    };
    all().then((answer) => {
      field.sending = null;
      const stays = held(field) !== was; // what was typed or chosen meanwhile
      field.tell(`${answer.name} is uploaded (${size(total)})${stays ? "; Browse has it" : ""}.`);
      if (stays) return;
      forget(field, answer.value);
      choose(field, { value: answer.value, name: answer.name, uploaded: true });
    }, (error) => {
      field.sending = null;
      fetch(address(), { method: "DELETE", headers: { "x-workbench": "upload" } }).catch(() => { /* swept later */ });
      field.tell(error.message || "Cancelled; nothing was kept.", Boolean(error.message));
    });
  }

  function cancel(field) {
    if (field.sending) field.sending.cancelled = true;
    field.sending?.request?.abort();
  }

  // Files of what was dropped, those of folders too, and the name of the folder if it was one.
  async function dropped(transfer) {
    const entries = [...(transfer.items || [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files], folder: "" };
    const files = [];
    async function walk(entry) {
      if (entry.name.startsWith(".") || files.length > 5000) return;
      if (entry.isFile) { files.push(await new Promise((resolve, reject) => entry.file(resolve, reject))); return; }
      const reader = entry.createReader();
      for (;;) {
        const found = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!found.length) break;
        for (const each of found) await walk(each);
      }
    }
    for (const entry of entries) await walk(entry);
    return { files, folder: entries.length === 1 ? entries[0].name : "" };
  }

  // ---- a field

  function mount({ element, props, server, trigger, options }) {
    const field = dressed({ element, props, server, trigger, options });
    const place = () => {
      const block = document.getElementById(options.field);
      if (!element.isConnected) return;
      if (!block) { setTimeout(place, 100); return; }
      stand(field, block);
      if (options.uploads && options.drop !== options.field) block.append(el("p", { className: "wb-pick-hint", textContent: `or drop a ${options.endings[0]} here` }));
    };
    place();
    accept(field, () => (document.getElementById(options.field)?.offsetParent ? document.getElementById(options.drop) : null)); // not where the field is hidden
  }

  // Browse and dropping for a field that a script made and may take away again: `block` holds its input. What is chosen
  // goes to `take({ value, name, uploaded })`. `server`, `options`: of `served` in component.py.
  function lend({ element, server, options }, block, take) {
    const field = dressed({ element: block, props: {}, server, trigger() {}, options, take, near: element });
    stand(field, block);
    accept(field, () => block);
  }

  function stand(field, block) {
    const { title } = field.options, named = block.dataset.named ? ` for ${block.dataset.named}` : "";
    const browse = button("Browse", () => show(field), { className: "wb-pick", "aria-haspopup": "dialog", "aria-label": `Browse: ${title}${named}` });
    block.classList.add("wb-has-pick");
    block.append(browse, field.status);
    for (const kind of ["input", "wb-quiet"]) block.addEventListener(kind, () => { if (!field.sending) field.tell(""); });
    field.block = block;
  }

  function dressed(given) {
    const field = { ...given, sending: null };
    const status = el("div", { className: "wb-pick-status" });
    const bar = el("progress", { max: 1, value: 0, "aria-label": "upload" });
    const words = el("span", { role: "status" });
    const stop = button("Cancel", () => cancel(field), { className: "wb-small" });
    status.append(bar, words, stop);
    field.status = status;
    field.show = (going, text, bad) => {
      status.className = `wb-pick-status${bad ? " wb-bad" : ""}${text ? " wb-said" : ""}`;
      bar.hidden = stop.hidden = !going;
      words.textContent = text;
    };
    field.tell = (text, bad = false) => field.show(false, text, bad);
    field.progress = (job, done, name) => {
      bar.max = Math.max(1, job.total);
      bar.value = done;
      const seconds = (Date.now() - job.began) / 1000;
      const rate = seconds > 1 ? ` · ${size(done / seconds)}/s` : "";
      field.show(true, `${name} · ${size(done)} of ${size(job.total)}${rate}`, false);
    };
    field.show(false, "", false);
    return field;
  }

  // Files may be dropped on `where()`; it is looked for anew each time, as Gradio may put it up again.
  function accept(field, where) {
    const carries = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    const inside = (event) => {
      if (!field.element.isConnected || !carries(event)) return null;
      if (open) return open === field && panel.contains(event.target) ? panel : null;
      const place = where();
      return place && place.contains(event.target) ? place : null;
    };
    let lit = null;
    const light = (place) => { if (lit !== place) { lit?.classList.remove("wb-drop"); place?.classList.add("wb-drop"); lit = place; } };
    const over = (event) => { const place = inside(event); light(place); if (place) { event.preventDefault(); event.dataTransfer.dropEffect = "copy"; } };
    const leave = (event) => { if (!event.relatedTarget) light(null); };
    const drop = (event) => {
      const place = inside(event);
      light(null);
      if (!place) return;
      event.preventDefault();
      event.stopPropagation();
      dropped(event.dataTransfer).then(({ files, folder }) => send(field, files, folder), (error) => field.tell(error.message, true));
    };
    for (const [name, act] of Object.entries({ dragover: over, dragenter: over, dragleave: leave, drop })) document.addEventListener(name, act, true);
  }

  const held = (field) => field.block?.querySelector("textarea, input")?.value; // Gradio sends no event as it changes

  function forget(field, value, seen = false) {
    const said = field.status.textContent, now = held(field);
    if (seen && now !== value) field.tell("");
    else if (field.element.isConnected) setTimeout(() => { if (field.status.textContent === said) forget(field, value, seen || now === value); }, FORGET_MS);
  }

  function choose(field, { value, name, uploaded = false }) {
    remember(field.options.kind, { value, name });
    if (field.take) { field.take({ value, name, uploaded }); if (open === field) panel.close(); return; }
    field.props.value = { value, name, uploaded, nonce: Math.random() };
    if (field.block?.querySelector("textarea")?.value !== value) document.dispatchEvent(new CustomEvent("wb-picked", { detail: { field: field.options.field, value } }));
    field.trigger("picked");
    if (open === field) panel.close();
  }

  // ---- the panel

  function build(near) {
    const title = el("h2", { id: "wb-picker-title" });
    const search = el("input", { type: "search", placeholder: "Search", "aria-label": "Search by name" });
    const crumbs = el("nav", { className: "wb-crumbs", "aria-label": "Folder" });
    const list = el("div", { className: "wb-picks", role: "group", "aria-label": "What can be chosen" });
    const pager = el("div", { className: "wb-picks-pages" });
    const told = el("div", { className: "wb-picker-status" });
    const upload = button("Upload files", () => file.click(), { className: "wb-small" });
    const file = el("input", { type: "file", multiple: true, hidden: true, tabIndex: -1, "aria-label": "Files to upload" });
    const hint = el("span", { className: "wb-muted" });
    const whole = button("Use this folder", () => { if (parts.here) choose(open, parts.here); }, { className: "wb-picker-use" });
    const close = button("Close", () => panel.close(), { className: "wb-small" });
    panel = el("dialog", { className: "wb-picker", "aria-labelledby": "wb-picker-title" },
      el("header", {}, title, search, close), crumbs, list, pager, told,
      el("footer", {}, upload, file, hint, whole));
    parts = { title, search, crumbs, list, pager, told, upload, file, hint, whole, here: null, folder: "", shown: "" };
    search.addEventListener("input", () => { clearTimeout(timer); busy(true); timer = setTimeout(() => go(parts.folder, 1), SEARCH_MS); });
    file.addEventListener("change", () => { const files = [...file.files]; file.value = ""; if (files.length) send(open, files); });
    panel.addEventListener("keydown", keys);
    panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); }); // beside it
    panel.addEventListener("close", () => { if (!panel.open) leave(); }); // told late: it may be open again by now
    (near.closest(".contain") || document.body).append(panel); // Gradio lets rules for narrow pages hold in there only
  }

  function leave() {
    const field = open;
    open = null;
    if (field?.block) { field.block.append(field.status); field.block.querySelector(".wb-pick")?.focus(); }
  }

  function show(field) {
    if (!panel?.isConnected) build(field.near || field.element);
    leave(); // the field whose closing was not told yet gets back what is its own
    open = field;
    const { title, uploads, endings, most } = field.options;
    parts.title.textContent = title;
    parts.search.value = "";
    parts.upload.hidden = !uploads;
    parts.file.accept = endings.map((ending) => (ending.startsWith(".") ? ending : `.${ending.split(".").at(-1)}`)).join(",");
    parts.hint.textContent = uploads ? `or drop them here. ${endings.join(" ")} · up to ${most}` : "read only: nothing can be uploaded";
    if (!field.sending) field.tell("");
    parts.told.replaceChildren(field.status);
    parts.list.replaceChildren();
    panel.showModal();
    parts.search.focus();
    go("", 1);
  }

  function keys(event) {
    const rows = [...parts.list.querySelectorAll("button.wb-row-go")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: at < 0 ? null : 0, End: at < 0 ? null : rows.length - 1 }[event.key];
    if (to !== undefined && to !== null && rows.length) {
      event.preventDefault();
      if (to < 0) parts.search.focus(); else rows[Math.min(to, rows.length - 1)].focus();
    } else if (event.key === "Backspace" && at >= 0 && parts.folder) {
      event.preventDefault();
      go(parts.up || "", 1, true);
    } else if (event.key === "Enter" && document.activeElement === parts.search) {
      event.preventDefault();
      if (parts.list.matches("[aria-busy=true]")) go(parts.folder, 1, true); else rows[0]?.focus(); // rows of other words are about to go
    }
  }

  const busy = (is) => parts.list.setAttribute("aria-busy", String(is));

  async function go(folder, page, focus = false) {
    clearTimeout(timer); // a search that was still waiting would undo this
    const field = open, turn = ++asked;
    if (!field) return;
    busy(true);
    parts.folder = folder; // words that are typed before the answer are looked for in there
    const found = await field.server.picker_list({ folder, page, search: parts.search.value })
      .catch(() => ({ error: "The server does not answer; try again." }));
    if (turn !== asked || open !== field) return; // someone has gone on
    draw(field, found, folder);
    busy(false);
    if (focus) (parts.list.querySelector("button") || parts.search).focus();
  }

  function draw(field, found, folder) {
    if (found.error) { field.tell(found.error, true); parts.folder = parts.shown; return; }
    const words = parts.search.value.trim();
    parts.folder = parts.shown = found.folder;
    crumbs(found);
    const groups = [...found.groups];
    const lately = recent(field.options.kind).map((each) => ({ ...each, detail: "", size: "", folder: "", choose: true }));
    if (!found.folder && !words && lately.length) groups.unshift({ title: "Recent", entries: lately });
    if (found.entries.length) groups.push({ title: words ? "Found" : "", entries: found.entries });
    parts.list.replaceChildren(...groups.map((group) => section(field, group)));
    if (!groups.length) {
      const none = words ? `Nothing here is called “${words}”.` : "There is nothing here that can be chosen.";
      parts.list.append(el("p", { className: "wb-muted", textContent: none }));
    }
    for (const note of found.notes) parts.list.append(el("p", { className: "wb-muted", textContent: note }));
    const turn = (by, text) => button(text, () => go(folder, found.page + by, true), { className: "wb-small", disabled: found.page + by < 1 || found.page + by > found.pages });
    parts.pager.replaceChildren(...(found.pages > 1
      ? [turn(-1, "Previous"), el("span", { textContent: `${found.first.toLocaleString("en")}–${found.last.toLocaleString("en")} of ${found.count.toLocaleString("en")}` }), turn(1, "Next")] : []));
    parts.here = found.here ? { value: found.here.value, name: found.crumbs.at(-1)?.name || found.here.value } : null;
    parts.whole.hidden = !parts.here;
    if (parts.here) parts.whole.textContent = `Use this folder (${found.here.detail})`;
    parts.list.scrollTop = 0;
  }

  function crumbs(found) {
    const steps = [{ name: "Start", folder: "" }, ...found.crumbs];
    parts.up = steps.at(-2)?.folder || "";
    const made = steps.map((step, number) => (number === steps.length - 1 ? el("span", { textContent: step.name, "aria-current": "page" })
      : button(step.name, () => { parts.search.value = ""; go(step.folder, 1, true); }, { className: "wb-crumb" })));
    parts.crumbs.replaceChildren(...made.flatMap((each, number) => (number ? [el("span", { textContent: "/", "aria-hidden": "true" }), each] : [each])));
    parts.crumbs.hidden = !found.folder;
  }

  function section(field, { title, entries }) {
    return el("section", {}, ...(title ? [el("h3", { textContent: title })] : []), el("ul", {}, ...entries.map((entry) => row(field, entry))));
  }

  function row(field, entry) {
    const enter = () => { parts.search.value = ""; go(entry.folder, 1, true); };
    const take = () => choose(field, entry);
    const line = button("", entry.folder ? enter : take, { className: `wb-row-go${entry.folder ? " wb-folder-row" : ""}`, title: entry.value || entry.folder });
    line.append(el("span", { className: "wb-row-name", textContent: entry.name + (entry.folder ? "/" : "") }),
      el("span", { className: "wb-row-detail", textContent: entry.detail || "" }), el("span", { className: "wb-row-size", textContent: entry.size || "" }));
    const made = el("li", {}, line);
    if (entry.folder && entry.choose) made.append(button("Use", take, { className: "wb-small", "aria-label": `Use the folder ${entry.name}` }));
    return made;
  }

  return { mount, lend, refusal, together, size };
})();
