/* What a person types in a tab's first moments stays. When a tab is opened for the first time, gradio draws its fields and
   a frame later, which on a busy machine may be seconds, puts the values into them that the tab was built with. */
"use strict";

(() => {
  const WATCHED = 10_000, OFTEN = 100;  // ms: since the last key, and between two looks
  const watched = new Map();  // field → what stood in it before, what was typed, until when it is looked at
  const mended = new WeakSet();  // gradio does it once; whoever does it again has a reason
  let timer = 0;

  const text = (field) => field instanceof HTMLTextAreaElement
    || (field instanceof HTMLInputElement && ["text", "number", "search", "url"].includes(field.type));
  // A drop-down puts another text into its field itself.
  const plain = (field) => text(field) && !field.closest("[role=listbox], [role=combobox], [aria-autocomplete]");

  function put(field, value) {
    const kind = field instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, value);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Whether gradio has put back what stood in a field before: then what was typed is put into it again. */
  function mend(field, { before, typed }) {
    if (typed === undefined || !field.isConnected || field.value !== before || field.value === typed) return false;
    mended.add(field);
    watched.delete(field);
    put(field, typed);
    return true;
  }

  function look() {
    for (const [field, known] of watched) {
      const over = performance.now() > known.until || !field.isConnected;
      if (!mend(field, known) && over) watched.delete(field);
    }
    if (watched.size) return;
    clearInterval(timer);
    timer = 0;
  }

  document.addEventListener("beforeinput", ({ target }) => {
    const known = watched.get(target);
    if (known?.typed !== undefined) mend(target, known);  // between two keys: the next one goes behind what was typed
    else if (plain(target) && !mended.has(target)) watched.set(target, { before: target.value });
  }, true);
  document.addEventListener("input", ({ target }) => {
    const known = watched.get(target);
    if (!known) return;
    Object.assign(known, { typed: target.value, until: performance.now() + WATCHED });
    timer ||= setInterval(look, OFTEN);
  }, true);
  // Whatever a person does besides may have another text put there: what is sent is taken out, a card fills in its own,
  // and a number that is left is put right.
  const forget = ({ target }) => (watched.has(target) && target.type !== "number") || watched.clear();
  document.addEventListener("click", forget, true);
  document.addEventListener("change", forget, true);
  document.addEventListener("keydown", ({ key }) => key === "Enter" && watched.clear(), true);
})();
