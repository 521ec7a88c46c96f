// Answers to changes of a form, one at a time. Gradio sends what several changed fields ask for side by side, and the
// answers come in any order: the last one could be about a form that is gone by then.
window.workbench.turns = (() => {
  "use strict";
  const MOMENT_MS = 20; // what changes within it is one change
  const LONGEST_MS = 30000; // an answer that takes longer is not waited for
  const turns = {};
  const of = (name) => (turns[name] ??= { timer: 0, late: 0, busy: false, again: false });
  let ask = null; // of the component that calls the server, once it is there

  function due(name) {
    const own = of(name);
    if (own.busy || !ask) { own.again = true; return; }
    clearTimeout(own.timer);
    own.timer = setTimeout(() => {
      own.busy = true;
      own.late = setTimeout(() => done(name), LONGEST_MS);
      ask(`${name}_due`);
    }, MOMENT_MS);
  }

  function done(name) {
    const own = of(name);
    clearTimeout(own.late);
    own.busy = false;
    if (own.again) { own.again = false; due(name); }
  }

  function mount({ trigger }) {
    ask = trigger;
    Object.keys(turns).forEach(done);
  }

  return { due, done, mount };
})();
