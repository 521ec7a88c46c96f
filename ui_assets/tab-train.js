// The train tab's notes: what is wrong with a field, or how it differs from the preset, inside the field's own block.
window.workbench.train = (() => {
  "use strict";
  let notes = {}; // dotted name -> markup, escaped by the server
  let watched = null; // the tab that the observer watches
  const observer = new MutationObserver(() => place());

  const slug = (name) => name.replaceAll(".", "-").replaceAll("_", "-");

  function write(field, id, markup) {
    let note = document.getElementById(id);
    if (!note) {
      note = document.createElement("div");
      Object.assign(note, { id, className: "wb-note" });
      note.dataset.live = "train.note"; // whose buttons the tab's live view hears
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
    const tab = document.getElementById("train");
    if (tab !== watched) {
      watched = tab;
      observer.disconnect();
      observer.observe(tab, { childList: true, subtree: true });
    }
    place();
  }

  return { showNotes };
})();
