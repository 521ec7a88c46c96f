// Waits for the server to say that something has changed, and tells the page by the event wb-changed. While the page is
// hidden nothing is asked; once it is seen again, what changed meanwhile is told at once.
//
// A browser has six connections to a server, for all its windows together, and a question that waits for news holds one.
// Windows therefore tell each other that they are there: while there are several, each asks in short.
window.workbench.changes = (() => {
  "use strict";
  const FIRST_MS = 1000, LONGEST_MS = 30000; // between tries without an answer
  const SHORT_MS = 2000; // between questions that are answered at once
  const HEARD_MS = 3 * SHORT_MS; // for which another window counts that was heard of
  const channel = new BroadcastChannel(`workbench changes ${new URL(".", document.baseURI).pathname}`);
  let stamp = "", asking = null, held = false, heard = -Infinity, failures = 0, timer = 0;

  const crowded = () => performance.now() - heard < HEARD_MS;
  const loaded = () => document.readyState === "complete";

  async function wait() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    channel.postMessage("here");
    const stop = asking = new AbortController();
    held = Boolean(stamp) && !crowded();
    try {
      const address = new URL("changes", document.baseURI);
      address.search = new URLSearchParams(held ? { since: stamp } : {});
      const answer = await fetch(address, { signal: stop.signal, cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const found = (await answer.json()).stamp;
      const changed = (stamp && found !== stamp) || failures;
      [stamp, failures] = [found, 0];
      if (changed) tell();
      if (loaded()) timer = setTimeout(wait, crowded() ? SHORT_MS : 0);
    } catch {
      if (!stop.signal.aborted) {
        failures += 1;
        if (failures === 2) tell(); // whoever asks now says that there is no answer
        timer = setTimeout(wait, Math.min(LONGEST_MS, FIRST_MS * 2 ** failures));
      }
    }
    if (asking === stop) asking = null;
  }

  function end() { asking?.abort(); asking = null; clearTimeout(timer); }

  function tell() { document.dispatchEvent(new CustomEvent("wb-changed")); }

  channel.addEventListener("message", ({ data }) => {
    if (document.hidden) return; // holds no connection
    heard = performance.now();
    if (data === "here") channel.postMessage("too");
    if (asking && held) { end(); timer = setTimeout(wait, SHORT_MS); }
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) end(); else wait(); });
  window.addEventListener("pagehide", end);
  window.addEventListener("pageshow", (event) => { if (event.persisted) wait(); });
  if (!loaded()) window.addEventListener("load", wait); // until then no connection is held
  wait(); // at once: what changes after a part of the page has asked must differ from a stamp that is older
  return { wait };
})();
