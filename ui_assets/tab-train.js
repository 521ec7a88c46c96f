// The train tab's notes: what is wrong with a field, or how it differs from the preset, inside the field's own block.
window.workbench.train = (() => {
  "use strict";
  let notes = {}; // dotted name -> markup, escaped by the server
  let watched = null;

  const slug = (name) => name.replaceAll(".", "-").replaceAll("_", "-");

  function write(field, id, markup) {
    let note = document.getElementById(id);
    if (!note) {
      note = document.createElement("div");
      Object.assign(note, { id, className: "wb-note" });
      field.append(note);
    }
    if (note.dataset.markup === markup) return;
    note.dataset.markup = markup;
    note.innerHTML = markup;
  }

  // A field of a fold that nobody opened yet is not in the page; its note waits for it.
  function place() {
    const wanted = new Set();
    for (const [name, markup] of Object.entries(notes)) {
      const field = document.getElementById(`field-${slug(name)}`);
      wanted.add(`note-${slug(name)}`);
      if (field) write(field, `note-${slug(name)}`, markup);
    }
    for (const note of document.querySelectorAll("#train .wb-note")) if (!wanted.has(note.id)) note.remove();
  }

  // `shown`: what the server keeps of the page, as JSON.
  function showNotes(shown) {
    try { notes = JSON.parse(shown || "{}").notes || {}; } catch { notes = {}; }
    place();
  }

  function mountNotes(element, trigger) {
    const tab = element.closest("#train");
    watched?.disconnect();
    watched = new MutationObserver(place);
    watched.observe(tab, { childList: true, subtree: true });
    tab.addEventListener("click", (event) => {
      const button = event.target.closest(".wb-note [data-reset]");
      if (button) trigger("click", { reset: button.dataset.reset });
    });
    place();
  }

  return { mountNotes, showNotes };
})();
