// On a narrow screen the list of runs is one line with the chosen run's name, which opens it; see tab-monitor.css.
window.workbench.choose = (() => {
  "use strict";
  let list = null;
  const opener = () => list?.querySelector(".wb-runs-chooser");

  function open(yes) {
    if (!list) return;
    list.classList.toggle("wb-runs-open", yes);
    opener().setAttribute("aria-expanded", String(yes));
  }

  function close() { // a run was chosen
    if (!list?.classList.contains("wb-runs-open")) return;
    open(false);
    opener().focus({ preventScroll: true });
  }

  // name: of the chosen run, "" for none; state: its word; more: runs that are overlaid besides it; none: there is no run.
  function tell({ name, state, more, none }) {
    if (!list) return;
    list.classList.toggle("wb-runs-empty", none);
    const words = [name || "Choose a run", more > 0 ? `and ${more} more` : "", state || ""];
    [...opener().querySelectorAll("[data-choose]")].forEach((place, at) => { if (place.textContent !== words[at]) place.textContent = words[at]; });
  }

  function mount(host) {
    list = host;
    opener().addEventListener("click", () => open(!list.classList.contains("wb-runs-open")));
    list.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || !list.classList.contains("wb-runs-open") || !opener().offsetParent) return;
      event.preventDefault();
      close();
    });
  }

  return { mount, tell, close };
})();
