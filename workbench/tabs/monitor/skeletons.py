"""What stands still of the parts that the page's own script (ui_assets/tab-monitor.js) fills: no data is in here."""

from __future__ import annotations

LIST = """
<section class="wb-runs" aria-label="Runs">
  <div class="wb-mon-bar wb-runs-bar">
    <label class="wb-search">Search runs
      <input type="search" placeholder="name, note, tag, state" autocomplete="off"></label>
    <label>Sort by <select>
      <option value="newest">newest</option><option value="state">at work first</option>
      <option value="star">starred first</option><option value="name">name</option><option value="loss">loss</option>
      <option value="share">progress</option><option value="speed">speed</option>
    </select></label>
  </div>
  <p class="wb-muted wb-runs-count" role="status"></p>
  <ul class="wb-runs-list"></ul>
  <div class="wb-empty wb-runs-none wb-hidden">
    <p>No run lies in this folder yet.</p>
    <p>Train starts one; a run started in a terminal appears here by itself.</p>
    <p><button type="button" class="wb-mon-button" data-wb-go="train">Go to Train</button></p>
  </div>
</section>
"""
LIST_SCRIPT = "window.workbench.monitor.mountList(element, props, watch, () => trigger('pick'));"

LOG = """
<section class="wb-log" aria-label="Log">
  <div class="wb-mon-bar wb-log-bar">
    <label>Log of <select data-log="file"></select></label>
    <label>Search the log <input type="search" data-log="query" autocomplete="off"></label>
    <label class="wb-mon-tick"><input type="checkbox" data-log="follow" checked> Follow</label>
    <span class="wb-muted" role="status" data-log="count"></span>
  </div>
  <pre class="wb-log-text" tabindex="0" aria-label="Log lines" data-log="text"></pre>
</section>
"""
LOG_SCRIPT = "window.workbench.monitor.mountLog(element);"

EXPORT = """
<section class="wb-export" aria-label="Export">
  <p class="wb-muted">Of the chosen run. The chart saves what it shows as PNG or SVG by its own menu.</p>
  <p><button type="button" class="wb-mon-button" data-export="csv">All points as CSV</button>
  <button type="button" class="wb-mon-button" data-export="config">Settings as TOML</button>
  <button type="button" class="wb-mon-button" data-export="report">Report as one HTML file</button></p>
  <p role="status" class="wb-muted" data-export-status></p>
</section>
"""
EXPORT_SCRIPT = "window.workbench.monitor.mountExport(element, server);"
