// Waits for the server to say that something has changed, and tells the page by the event wb-changed. While the page is
// hidden nothing is asked; once it is seen again, what changed meanwhile is told at once.
window.workbench.changes = (() => {
  "use strict";
  const FIRST_MS = 1000, LONGEST_MS = 30000; // between tries without an answer
  let stamp = "", asking = null, failures = 0, timer = 0;

  async function wait() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    const stop = asking = new AbortController();
    try {
      const address = new URL("changes", document.baseURI);
      address.search = new URLSearchParams(stamp ? { since: stamp } : {});
      const answer = await fetch(address, { signal: stop.signal, cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const found = (await answer.json()).stamp;
      const changed = (stamp && found !== stamp) || failures;
      [stamp, failures] = [found, 0];
      if (changed) tell();
      timer = setTimeout(wait);
    } catch {
      if (!stop.signal.aborted) {
        failures += 1;
        if (failures === 2) tell(); // whoever asks now says that there is no answer
        timer = setTimeout(wait, Math.min(LONGEST_MS, FIRST_MS * 2 ** failures));
      }
    }
    if (asking === stop) asking = null;
  }

  function tell() { document.dispatchEvent(new CustomEvent("wb-changed")); }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { asking?.abort(); asking = null; clearTimeout(timer); } else wait();
  });
  window.addEventListener("pagehide", () => asking?.abort());
  if (document.readyState === "complete") wait();
  else window.addEventListener("load", wait);
  return { wait };
})();
