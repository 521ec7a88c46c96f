// Files of the chosen run to take away: its points as CSV, made while they are saved, and what the server writes of it.
window.workbench.exports = (() => {
  "use strict";

  function mount(host, server) {
    const status = host.querySelector("[data-export-status]");
    let told = 0;
    const tell = (text) => {
      status.textContent = text;
      clearTimeout(told);
      told = setTimeout(() => { status.textContent = ""; }, 8000);
    };
    document.addEventListener("click", async (event) => {
      const what = event.target.closest?.("#wb-monitor-head [data-act=export]")?.dataset.id;
      if (!what) return;
      const run = window.workbench.monitor.shown();
      tell("Preparing …");
      try {
        if (what === "csv") { // made while it is saved: a long run's is large
          const link = document.createElement("a");
          link.href = new URL(`points.csv?runs=${encodeURIComponent(run)}`, document.baseURI);
          link.download = `${run}.csv`;
          link.click();
          tell(`${run}.csv is in your downloads.`);
          return;
        }
        const file = await server.export_run({ run, what });
        if (file?.problem === undefined && file?.text === undefined) throw new Error("no answer"); // Gradio answers for a server that does not
        if (file.problem !== undefined) { tell(file.problem); return; }
        window.workbench.download(file.name, file.text, file.type);
        tell(`${file.name} is in your downloads.`);
      } catch { tell("The server did not answer; try again."); }
    });
  }

  return { mount };
})();
