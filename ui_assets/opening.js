// Before anything else of the page: the colours that were chosen on it, and the tab that its address names.
(() => {
  "use strict";
  const SLOW_MS = 20000;
  let chosen = null;
  try { chosen = localStorage.getItem("workbench-theme"); } catch { /* a private window: as the system has it */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.wbTheme = chosen;
  document.documentElement.style.colorScheme = chosen || "";
  const tab = new URLSearchParams(location.search).get("tab");
  for (const name of document.querySelectorAll("#wb-opening [data-opens]")) name.classList.toggle("now", name.dataset.opens === tab);
  setTimeout(() => {
    const sheet = document.getElementById("wb-opening");
    if (document.querySelector(".wb-head") || sheet.matches(".wb-late, .wb-stays")) return;
    sheet.classList.add("wb-late");
    sheet.querySelector("p").textContent = "This takes longer than it should. The page goes on loading; if nothing comes, load it again.";
  }, SLOW_MS);
})();
