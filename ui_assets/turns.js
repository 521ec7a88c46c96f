// Answers to changes of a form and to what is done in a part of a page, one at a time. Gradio sends what several fields and
// buttons ask for side by side, or leaves out what comes while another is answered: the last answer could be about a form
// that is gone by then, or about something else than was chosen last.
window.workbench.turns = (() => {
  "use strict";
  const MOMENT_MS = 20; // what changes within it is one change
  const LONGEST_MS = 30000; // an answer that takes longer is not waited for
  const turns = {};
  const of = (name) => (turns[name] ??= { timer: 0, late: 0, busy: false, again: false, next: {}, now: {} });
  let ask = null; // of the component that calls the server, once it is there

  // what, values: of an act, which of them it is and what the fields held as it was done; of a form what they hold when it
  // is asked about. Only the last one that came while another was answered is asked about.
  function due(name, what = "", values = null) {
    const own = of(name);
    own.next = { what, values, waited: own.busy };
    if (own.busy || !ask) { own.again = true; return; }
    clearTimeout(own.timer);
    own.timer = setTimeout(() => {
      own.busy = true;
      own.now = own.next;
      if (!what) own.late = setTimeout(() => done(name), LONGEST_MS);
      ask(`${name}_due`, { what, waited: own.now.waited });
    }, MOMENT_MS);
  }

  function done(name) {
    const own = of(name);
    clearTimeout(own.late);
    own.busy = false;
    if (!own.again) return;
    const { what, values, waited } = own.next;
    own.again = false;
    due(name, what, values);
    own.next.waited = waited;
  }

  // What is answered, or waits to be; "" for nothing.
  function doing(name) {
    const own = of(name);
    return own.busy || own.again ? own.next.what : "";
  }

  function mount({ trigger }) {
    ask = trigger;
    Object.keys(turns).forEach(done);
    window.workbench.onGo?.((query) => due("back", query));
  }

  return { due, done, doing, mount, values: (name) => of(name).now.values };
})();
