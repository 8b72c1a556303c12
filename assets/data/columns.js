/* Which column of a file is the prompt, which the answer: drop-downs with the first rows below them. Loaded after
   form.js. Names and cells are of anyone's file, so all of it is put in as text. */
"use strict";

(() => {
  const { h, postJson } = window.studio;
  const TITLES = { prompt: "Prompt", completion: "Completion", system: "System prompt", text: "Text", chosen: "Chosen answer",
    rejected: "Rejected answer", label: "Label", answer: "Expected answer" };
  const kept = new Map(); // what was answered, so that a change of another option draws without a gap

  /** The drop-downs of a source; `onChange` gets the mapping, undefined for none. */
  function columns(source, onChange) {
    const box = h("div", { class: "columns" }), question = { source, method: window.studioForm.state.method };
    const key = JSON.stringify(question);
    if (kept.has(key)) draw(box, kept.get(key), onChange);
    postJson("/api/data/columns", question).then((found) => {
      kept.set(key, found);
      if (!box.contains(document.activeElement)) draw(box, found, onChange);
    }, (error) => box.replaceChildren(h("p", { class: "wrong" }, error.message)));
    return box;
  }

  function draw(box, found, onChange) {
    if (found.error || !found.columns.length) { box.replaceChildren(); return; } // the findings say why
    const roles = [...found.roles, ...Object.keys(found.mapping).filter((role) => !found.roles.includes(role))];
    const selects = roles.map((role) => {
      const now = found.mapping[role] ?? "", names = found.columns.includes(now) || !now ? found.columns : [now, ...found.columns];
      const select = h("select", { class: "field-input", "aria-label": `Column of ${TITLES[role] || role}`, onchange: () => {
        const mapping = { ...found.mapping, [role]: select.value };
        const said = Object.entries(mapping).filter(([, column]) => column);
        onChange(said.length ? Object.fromEntries(said) : undefined);
      } }, h("option", { value: "" }, "no column"), ...names.map((name) => h("option", { value: name, selected: name === now }, name)));
      return h("label", {}, h("span", {}, TITLES[role] || role), select);
    });
    const cells = (row) => h("tr", {}, ...row.map((text) => h("td", {}, text)));
    box.replaceChildren(h("div", { class: "option-grid" }, ...selects),
      h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "First rows of the file" }, h("table", {},
        h("thead", {}, h("tr", {}, ...found.columns.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...found.rows.map(cells)))));
  }

  Object.assign(window.studioForm, { columns });
})();
