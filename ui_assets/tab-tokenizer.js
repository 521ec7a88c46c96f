// Says what the token is that is pointed at, and walks from token to token with the arrow keys.
(() => {
  "use strict";

  function told(token) {
    const [id, ...bytes] = token.dataset.t.split(" ");
    const many = bytes.filter((b) => b).length;
    return `id ${id} \u00b7 ${many} ${many === 1 ? "byte" : "bytes"}: ${bytes.join(" ")}`;
  }

  function tell(event) {
    const token = event.target.closest?.(".wb-tok[data-t]");
    const line = token?.closest(".wb-toks")?.parentElement?.querySelector(".wb-tok-detail");
    if (line) line.textContent = told(token);
  }

  function next(token, key) {
    const all = token.parentElement.querySelectorAll(".wb-tok[data-t]");
    switch (key) {
      case "ArrowRight": return token.nextElementSibling;
      case "ArrowLeft": return token.previousElementSibling;
      case "Home": return all[0];
      case "End": return all[all.length - 1];
      default: return null;
    }
  }

  function walk(event) {
    const token = event.target.closest?.(".wb-tok[data-t]");
    const to = token && !event.ctrlKey && !event.metaKey && !event.altKey ? next(token, event.key) : null;
    if (!to?.dataset?.t) return;
    event.preventDefault();
    token.removeAttribute("tabindex");
    to.tabIndex = 0; // one stop of the Tab key, wherever one has walked to
    to.focus();
  }

  document.addEventListener("mouseover", tell);
  document.addEventListener("focusin", tell);
  document.addEventListener("keydown", walk);
})();
