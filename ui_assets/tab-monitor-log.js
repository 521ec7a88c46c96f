// The log of the chosen run: what of it is here, what is new at its end, and a search in it.
window.workbench.log = (() => {
  "use strict";
  const MAX_LINES = 3000;

  function element(tag, kind, text = "") {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  }

  // What the server is told of what is here already.
  const asked = () => ({ run: tail.run, file: tail.file, files: tail.files, offset: tail.offset, open: tail.open });

  const tail = { host: null, run: "", file: "", files: [], offset: null, open: "", lines: [], skipped: 0 };

  function mount(host) {
    tail.host = host;
    const find = (name) => host.querySelector(`[data-log=${name}]`);
    find("query").addEventListener("input", draw);
    find("file").addEventListener("change", () => { Object.assign(tail, { file: find("file").value, offset: null, open: "", lines: [] }); draw(); window.workbench.live.ask("monitor"); });
    find("follow").addEventListener("change", follow);
    find("text").addEventListener("scroll", () => {
      const box = find("text");
      find("follow").checked = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    });
    draw();
  }

  function receive(news) {
    if (news.run !== window.workbench.monitor.focus()) return; // an answer that a later choice has overtaken
    const same = news.run === tail.run && news.file === tail.file;
    const continued = same && !news.fresh && news.from === tail.offset;
    if (same && !news.fresh && !continued) return; // two answers to one question: the first has brought it
    Object.assign(tail, { run: news.run, file: news.file, files: news.files, offset: news.offset ?? null, open: news.open || "" });
    const lines = news.lines || [];
    if (!continued) { tail.lines = []; tail.skipped = news.skipped || 0; }
    else if (news.skipped) tail.lines.push(`… ${news.skipped.toLocaleString("en-US")} bytes were written too quickly to be shown here …`);
    tail.lines.push(...lines);
    const over = tail.lines.length - MAX_LINES;
    if (over > 0) tail.lines.splice(0, over);
    draw(continued && over <= 0 ? lines.length : -1);
  }

  // `added`: how many lines are new at the end; -1 draws everything anew.
  function draw(added = -1) {
    const host = tail.host;
    if (!host) return;
    const find = (name) => host.querySelector(`[data-log=${name}]`);
    const box = find("text");
    const choice = find("file");
    if ([...choice.options].map((option) => option.value).join("\n") !== tail.files.join("\n")) {
      choice.replaceChildren(...tail.files.map((name) => { const option = element("option", "", name); option.value = name; return option; }));
    }
    choice.value = tail.file;
    const words = find("query").value.trim().toLowerCase();
    const anew = typeof added !== "number" || added < 0;
    const wanted = (line) => !words || line.toLowerCase().includes(words);
    box.querySelector(".wb-log-open")?.remove();
    if (anew) box.replaceChildren();
    const fresh = anew ? tail.lines : tail.lines.slice(tail.lines.length - added);
    box.append(...fresh.filter(wanted).map((line) => logLine(line, words, "")));
    if (tail.open && wanted(tail.open)) box.append(logLine(tail.open, words, "wb-log-open"));
    const shown = box.querySelectorAll(".wb-log-line").length;
    const earlier = tail.skipped ? `, the end of a longer log` : "";
    find("count").textContent = !tail.files.length ? "No log yet." : words ? `${shown} of ${tail.lines.length} lines` : `${tail.lines.length} lines${earlier}`;
    follow();
  }

  function logLine(text, words, kind) {
    const line = element("span", `wb-log-line ${kind}`.trim());
    const lower = text.toLowerCase();
    let from = 0;
    for (let at = words ? lower.indexOf(words) : -1; at >= 0; at = lower.indexOf(words, from)) {
      line.append(text.slice(from, at), element("mark", "", text.slice(at, at + words.length)));
      from = at + words.length;
    }
    line.append(text.slice(from), "\n");
    return line;
  }

  function follow() {
    const host = tail.host, box = host?.querySelector("[data-log=text]");
    if (box && host.querySelector("[data-log=follow]").checked) box.scrollTop = box.scrollHeight;
  }

  return { mount, receive, asked };
})();
