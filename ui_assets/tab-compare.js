// Compare in the browser: what is chosen here, and what is ticked in Monitor where nothing is.
window.workbench.compare = (() => {
  "use strict";
  // An empty choice of models is none: what is ticked comes back.
  function chosen(asked, [models, protocol]) {
    const given = { models: models?.length ? models : null, protocol: protocol ?? null };
    window.workbench.url({ tab: "compare", models: (models || []).join(","), protocol });
    return { ...asked, ...given, filled: null };
  }

  // What is measured from here on is shown when it is there; until then what is shown stays.
  function begun(asked, values) { return { ...chosen(asked, values), since: Date.now() / 1000 }; }

  function ticked() {
    const { focus, chosen: all } = window.workbench.monitor || {};
    return [...new Set([focus?.(), ...(all?.() || "").split(",")])].filter(Boolean);
  }

  // A link is known by its address before the server has filled the fields from it.
  function ask(value) {
    const { tab, models, protocol } = window.workbench.params(), here = tab === "compare";
    return { ticked: ticked(), models: value.models ?? ((here && models?.split(",")) || null), protocol: value.protocol ?? ((here && protocol) || null) };
  }

  return { chosen, begun, ask };
})();
