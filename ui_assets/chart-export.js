// What is on screen as a picture with its title and settings, and every raw point as a table.

const version = new URL(import.meta.url).search;
const { smoothingWidth, sourcesOf, unitWords } = await import(`./chart-curves.js${version}`);
const { MARGIN, colourOf, escape, sourceColour } = await import(`./chart-look.js${version}`);
const { xWords } = await import(`./chart-legend.js${version}`);
const { smoothWords } = await import(`./chart-tools.js${version}`);

const HEAD = 46;

export function settingsWords({ view, options }, width) {
  const words = [`x: ${options.axes[view.x].title}${view.logx ? " (log)" : ""}`, view.logy ? "log y" : "", `smoothing: ${smoothWords(view.smooth, width)}`];
  if (view.minus) words.push(`minus ${view.minus}`);
  if (view.range) words.push(`${xWords(view.x, view.range[0])} to ${xWords(view.x, view.range[1])}`);
  return words.filter(Boolean).join(" · ");
}

// Saves what is shown, as PNG or SVG, or every point as CSV. Throws what went wrong.
export async function save(chart, kind) {
  const name = chart.view.runs.join("-").slice(0, 80) || "chart";
  if (kind === "CSV") {
    const { problem } = await chart.server.chart_table({ runs: chart.view.runs });
    if (problem) throw new Error(problem);
    const link = document.createElement("a");
    link.href = new URL(`points.csv?runs=${encodeURIComponent(chart.view.runs.join(","))}`, document.baseURI);
    link.download = `${name}.csv`;
    link.click();
    return;
  }
  const nodes = [...chart.panels.values()].filter((panel) => panel.drawn && !panel.element.hidden).map((panel) => [panel.id, panel.plot, panel.key?.textContent || ""]);
  if (!nodes.length) return;
  const made = await picture(await chart.library(), chart, nodes, chart.grid, chart.options.label);
  if (kind === "SVG") window.workbench.download(`${name}.svg`, made.svg, "image/svg+xml");
  else window.workbench.download(`${name}.png`, await png(made), "image/png");
}

// What stands beside a panel's title, [words, colour] each: the sources of mixtures in their colours, and what its signs
// mean, as far as they have room for so many letters; the next panel begins behind.
export function keyOf(state, id, signs, room) {
  const sources = state.options.panels[id].sources ? sourcesOf(state) : [];
  const key = [...sources.map(({ name }, place) => [`■ ${name}`, sourceColour(state, place)]), ...(signs ? [[signs, state.theme.muted]] : [])];
  let used = 0;
  return key.filter(([words]) => (used += words.length + 2) <= room);
}

// One SVG of all panels, where they are on screen. `nodes`: [[id, plotly node, what its signs mean], ...]; `grid` is what they lie in.
export async function picture(Plotly, state, nodes, grid, title) {
  const { theme } = state;
  const [width, frame] = [grid.clientWidth, grid.getBoundingClientRect()];
  let y = HEAD + 18;
  const text = (x, at, words, colour, size, weight = 400) =>
    `<text x="${x}" y="${at}" fill="${colour}" font-family="${escape(theme.font).replace(/"/g, "'")}" font-size="${size}" font-weight="${weight}">${escape(words)}</text>`;
  const parts = [text(MARGIN.l, 20, title, theme.ink, 15, 600), text(MARGIN.l, 38, settingsWords(state, smoothingWidth(state)), theme.muted, 12)];
  let x = MARGIN.l;
  for (const name of state.view.runs) {
    const colour = colourOf(state, name);
    const needed = 24 + 7.5 * name.length;
    if (x > MARGIN.l && x + needed > width) { x = MARGIN.l; y += 18; }
    parts.push(`<rect x="${x}" y="${y - 9}" width="10" height="10" rx="2" fill="${colour}"/>`, text(x + 15, y, name, theme.ink, 12));
    x += needed + 8;
  }
  y += 14;
  for (const [id, node, signs] of nodes) {
    const [wide, high, place] = [node.clientWidth, node.clientHeight, node.getBoundingClientRect()];
    const [left, top] = [place.left - frame.left, y + place.top - frame.top];
    const address = await Plotly.toImage(node, { format: "svg", width: wide, height: high });
    const inner = decodeURIComponent(address.slice(address.indexOf(",") + 1)).replace(/^[^]*?(?=<svg)/, "").replace("<svg ", `<svg x="${left}" y="${top}" `);
    const { title: words } = state.options.panels[id];
    const unit = unitWords(state, id), said = `${words}${unit ? ` (${unit})` : ""}`;
    const key = keyOf(state, id, signs, (wide - 12 - 8 * said.length) / 6.6).map(([word, colour]) => `<tspan dx="14" fill="${colour}" font-size="12" font-weight="400">${escape(word)}</tspan>`);
    parts.push(text(left + 12, top - 8, said, theme.ink, 13, 600).replace("</text>", `${key.join("")}</text>`), inner);
  }
  y += grid.clientHeight + 6;
  return { width, height: y, svg: `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}">`
    + `<rect width="100%" height="100%" fill="${theme.panel}"/>${parts.join("")}</svg>` };
}

export async function png({ width, height, svg }, scale = 2) {
  const image = new Image();
  await new Promise((loaded, failed) => {
    image.onload = loaded;
    image.onerror = () => failed(new Error("the picture could not be drawn"));
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  });
  const canvas = document.createElement("canvas");
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.drawImage(image, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
