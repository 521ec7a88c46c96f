// Gradio's lists of tabs by the keys of the WAI-ARIA pattern: one stop each, arrows, Home and End move, Enter or Space opens.
(() => {
  "use strict";
  const tabsOf = (list) => [...list.querySelectorAll(":scope > [role=tab]")].filter((tab) => !tab.disabled); // also before they are seen

  // The tab that Tab stops at: the one with the focus, else the one that is open.
  function settle(list, focused = document.activeElement) {
    const tabs = tabsOf(list);
    const stop = tabs.find((tab) => tab === focused) || tabs.find((tab) => tab.ariaSelected === "true") || tabs[0];
    for (const tab of tabs) { const index = tab === stop ? "0" : "-1"; if (tab.getAttribute("tabindex") !== index) tab.setAttribute("tabindex", index); }
  }

  function settleAll() { for (const list of document.querySelectorAll("[role=tablist]")) settle(list); }

  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.("[role=tablist] > [role=tab]");
    if (!tab || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const tabs = tabsOf(tab.parentElement), at = tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs.at(to % tabs.length).focus();
  });

  for (const [kind, goes] of [["focusin", (event) => event.target], ["focusout", (event) => event.relatedTarget]]) {
    document.addEventListener(kind, (event) => { // at once: Shift+Tab may follow Tab before any timer does
      const list = event.target.closest?.("[role=tablist]");
      if (list) settle(list, goes(event));
    });
  }

  let due = false; // once for many changes
  function soon() {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; settleAll(); });
  }

  // A list that is put up anew, or whose tab was opened by a link or by another tab.
  const isTab = (node) => node.nodeType === 1 && (node.matches("[role=tab]") || (node.childElementCount > 0 && node.querySelector("[role=tab]")));
  new MutationObserver((changes) => {
    if (changes.some((change) => change.type === "attributes" ? change.target.matches("[role=tab]") : [...change.addedNodes].some(isTab))) soon();
  }).observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ["aria-selected"] });
  window.addEventListener("resize", soon);
})();
