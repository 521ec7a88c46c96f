// The points of the runs that a link names are asked for while the page is still being built; the chart finds them here.
// The chart's scripts then come as early: they wait for one another, each time behind whatever the page is at work on.
window.workbench.early = (() => {
  "use strict";
  const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, MOST = 8, CHART = "wb-monitor-chart";
  const answers = new Map(); // by run

  // `components`: Gradio's configuration, by which the server knows the chart. `script`: the chart's, by its address.
  function begin(components, script) {
    const { tab = "monitor", runs = "", x = "step" } = window.workbench.params();
    const chart = components.find(({ props }) => props.elem_id === CHART);
    if (!chart || tab !== "monitor" || !["step", "tokens"].includes(x)) return;
    const names = [...new Set(runs.split(",").map((name) => name.trim()))].filter((name) => NAME.test(name)).slice(0, MOST);
    for (const run of names) answers.set(run, ask(chart.id, run));
    if (names.length) import(new URL(script, document.baseURI)).catch(() => {}); // the chart imports it itself, and tells what is wrong
  }

  async function ask(component, run) {
    try {
      const answer = await fetch(new URL("gradio_api/component_server/", document.baseURI), { method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ data: { wants: [{ run, cursor: null }], columns: ["loss"] }, component_id: component,
          fn_name: "chart_points", session_hash: "early" }) });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null; // the chart asks itself, and tells what is wrong
    }
  }

  // What charts/points.py answers for a run from its start, of these columns, or null; once.
  async function points(run, columns) {
    const answer = columns.join() === "loss" ? answers.get(run) : null;
    answers.delete(run);
    const replies = await answer;
    return Array.isArray(replies) && replies.length ? replies : null;
  }

  return { begin, points };
})();
