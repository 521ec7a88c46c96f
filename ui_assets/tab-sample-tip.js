// The figures of one token right beside it: of that under the pointer, else of that with the focus. Escape takes them away.
window.workbench.sampleTip = (root, content) => {
  "use strict";
  const GAP = 4; // pixels between the token and its figures, and to the edges of the window
  const node = document.createElement("div");
  Object.assign(node, { className: "wb-sample-tip", hidden: true });
  node.setAttribute("aria-hidden", "true"); // the token's own label says the same
  let shown = null;

  function place() {
    const box = shown.getClientRects()[0], frame = shown.closest("[data-pane]").getBoundingClientRect();
    if (!box || box.bottom < frame.top || box.top > frame.bottom) { node.hidden = true; return; }
    node.hidden = false;
    const { width, height } = node.getBoundingClientRect();
    const above = box.top - height - GAP;
    node.style.left = `${Math.max(GAP, Math.min(box.left, window.innerWidth - width - GAP))}px`;
    node.style.top = `${above >= GAP ? above : box.bottom + GAP}px`;
  }

  function show(token) {
    if (token !== shown && token) node.replaceChildren(...content(token.item, Number(token.dataset.at)));
    shown = token;
    if (token) place();
    else node.hidden = true;
  }

  const token = (target) => target?.closest?.("[data-at]") || null;
  const focused = () => (root.contains(document.activeElement) ? token(document.activeElement) : null);
  let at = ""; // where the pointer is: a text that scrolls below it is not pointed at
  function moved(event) {
    const now = `${event.clientX} ${event.clientY}`, did = now !== at;
    at = now;
    return did;
  }
  root.addEventListener("mousemove", moved);
  root.addEventListener("click", moved);
  root.addEventListener("mouseover", (event) => { if (moved(event)) show(token(event.target) || focused()); });
  root.addEventListener("mouseleave", () => show(focused()));
  root.addEventListener("focusin", (event) => show(token(event.target)));
  root.addEventListener("focusout", (event) => show(token(event.relatedTarget)));
  root.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });
  for (const [where, what] of [[document, "scroll"], [window, "resize"]]) {
    where.addEventListener(what, () => { if (shown?.isConnected) place(); else show(null); }, { capture: true, passive: true });
  }
  return { node };
};
