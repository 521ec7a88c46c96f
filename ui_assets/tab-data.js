// The data tab in the browser: which source is open, whatever stands in its field by now, and what the address asks for.
window.workbench.data = (() => {
  "use strict";
  const OPENS = ["open", "linked", "close"]; // acts after which the files that are shown go
  const FIELDS = 3; // source, text column, tokenizer
  const { turns } = window.workbench;
  let opened = null;

  // Files and documents are those of the source that is shown; while another one is opened they are about to go.
  function act(name, what, values) {
    if (OPENS.includes(what)) window.workbench.url(what === "close" ? { source: null } : { source: values[0], run: null, step: null });
    else if (OPENS.includes(turns.doing(name))) return;
    turns.due(name, what, OPENS.includes(what) || !opened ? values : [...opened, ...values.slice(FIELDS)]);
  }

  function shown() { // an act was answered
    const values = turns.values("source");
    if (values) opened = values.slice(0, FIELDS);
  }

  // A request by way of the address or of another tab, which is in the fields by now: `source`, `order` and `step` are
  // what the fields of each part hold.
  function asked(text, { source, order, step }) {
    let request = {};
    try { request = JSON.parse(text || "{}") || {}; } catch { /* a damaged request asks for nothing */ }
    const linked = (what) => (request.link ? "linked" : what);
    if ("source" in request) turns.due("source", linked("open"), source);
    else if ("run" in request) turns.due("step", "show", step);
    else if (request.runs) turns.due("order", linked("show"), order);
  }

  return { act, shown, asked, source: (now) => opened?.[0] ?? now };
})();
