// Plotly, fetched once for all charts of the page, and a panel's first drawing by it.

let plotly = null;

export function loadPlotly(address) {
  plotly ||= new Promise((loaded, failed) => {
    if (window.Plotly) { loaded(window.Plotly); return; }
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => loaded(window.Plotly);
    script.onerror = () => { plotly = null; failed(new Error("plotly.js could not be loaded")); };
    document.head.append(script);
  });
  return plotly;
}

export async function firstDrawing(Plotly, plot, data, layout) {
  await Plotly.newPlot(plot, data, layout, { displayModeBar: false, doubleClick: false, scrollZoom: false, showTips: false });
  anchorClips(plot);
}

// Whatever waits for the page's thread has its turn, and if `seen` what was drawn is first seen.
export function turn(seen) {
  return new Promise((next) => { if (seen) requestAnimationFrame(() => setTimeout(next, 0)); else setTimeout(next, 0); });
}

// Beside a <base>, Plotly writes the page's whole address into its clip paths; they would be lost when the address changes.
function anchorClips(plot) {
  plot._context._baseUrl = "";
  for (const part of plot.querySelectorAll("[clip-path]")) {
    part.setAttribute("clip-path", part.getAttribute("clip-path").replace(/^url\(['"]?[^#]*(#[^'")]*)['"]?\)$/, "url($1)"));
  }
}
