/* Which column of a file is the prompt, which the answer: drop-downs with the first rows below them. Loaded after
   form.js. Names and cells are of anyone's file, so all of it is put in as text. */
"use strict";

(() => {
  const { h, postJson } = window.studio;
  const TITLES = { prompt: "Prompt", completion: "Completion", system: "System prompt", text: "Text", chosen: "Chosen answer",
    rejected: "Rejected answer", label: "Label", answer: "Expected answer" };
  const kept = new Map(); // what was answered, so that a change of another option draws without a gap

  /** The drop-downs of a source: their box, and `show`, which asks for those of a source that differs, `again` also for
   *  the same one, whose file may have changed. While a person is in the box it stays as it is, and is drawn when they
   *  leave it. `onChange` gets the mapping, undefined for none. */
  function columns(onChange) {
    const box = h("div", { class: "columns" });
    let asked = "", due = null;
    const drawDue = () => {
      if (!due || box.contains(document.activeElement)) return;
      due();
      due = null;
    };
    // Later: during a change or a loss of focus it cannot be told yet where the focus goes.
    const later = (work) => { due = work; setTimeout(drawDue); };
    box.addEventListener("focusout", () => setTimeout(drawDue));
    const show = (source, again) => {
      const question = { source, method: window.studioForm.state.method }, key = JSON.stringify(question);
      if (key === asked && !again) return;
      if (key !== asked) due = null;
      if (key !== asked && kept.has(key)) later(() => draw(box, kept.get(key), onChange));
      asked = key;
      postJson("/api/data/columns", question).then((found) => {
        kept.set(key, found);
        if (key === asked) later(() => draw(box, found, onChange));
      }, (error) => { if (key === asked) later(() => box.replaceChildren(h("p", { class: "wrong" }, error.message))); });
    };
    return { box, show };
  }

  function draw(box, found, onChange) {
    if (found.error || !found.columns.length) { box.replaceChildren(); return; } // the findings say why
    const roles = [...found.roles, ...Object.keys(found.mapping).filter((role) => !found.roles.includes(role))];
    const chosen = roles.map((role) => {
      const now = found.mapping[role] ?? "", names = found.columns.includes(now) || !now ? found.columns : [now, ...found.columns];
      return h("select", { class: "field-input", "aria-label": `Column of ${TITLES[role] || role}`, onchange: () => {
        // Of all drop-downs: another one may have been changed since they were drawn.
        const said = roles.map((one, at) => [one, chosen[at].value]).filter(([, column]) => column);
        onChange(said.length ? Object.fromEntries(said) : undefined);
      } }, h("option", { value: "" }, "no column"), ...names.map((name) => h("option", { value: name, selected: name === now }, name)));
    });
    const labels = roles.map((role, at) => h("label", {}, h("span", {}, TITLES[role] || role), chosen[at]));
    const cells = (row) => h("tr", {}, ...row.map((text) => h("td", {}, text)));
    box.replaceChildren(h("div", { class: "option-grid" }, ...labels),
      h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": "First rows of the file" }, h("table", {},
        h("thead", {}, h("tr", {}, ...found.columns.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...found.rows.map(cells)))));
  }

  Object.assign(window.studioForm, { columns });
})();
