/* Several runs at once: rows of an option and the values to try. They travel with the form's meta. */
"use strict";

window.studioForm.sweep = ({ element, trigger }, constants) => {
  const { h } = window.studio;
  const { state, subscribe, runsText } = window.studioForm;
  const rows = element.querySelector(".sweep-rows"), said = element.querySelector(".sweep-said");
  const known = new Map(constants.options.map((option) => [option.path, option]));
  element.querySelector("datalist").replaceChildren(...constants.options.map((option) => h("option", { value: option.path }, option.title)));

  /** What the rows say; rows that are not whole yet count for nothing. */
  function read() {
    const found = {};
    for (const row of rows.children) {
      const [path, values] = [...row.querySelectorAll("input")].map((input) => input.value.trim());
      if (path && values) found[path] = values;
    }
    return found;
  }

  function changed() {
    state.sweep = read();
    trigger("input");
  }

  function field(row, title, value, note) {
    const input = h("input", { type: "text", class: "field-input", value, autocomplete: "off", spellcheck: "false", placeholder: note, onchange: changed });
    row.append(h("label", {}, h("span", {}, title), input));
    return input;
  }

  function add(path = "", values = "") {
    const row = h("li", { class: "sweep-row" });
    rows.append(row);
    const option = field(row, "Option", path, "training.learning_rate"), list = field(row, "Values", values, "1e-4, 2e-4");
    option.setAttribute("list", "sweep-options");
    option.addEventListener("input", () => { list.placeholder = known.get(option.value)?.example || "1e-4, 2e-4"; });
    row.append(h("button", { type: "button", class: "btn quiet", onclick: () => { row.remove(); changed(); adder.focus(); } }, "Remove"));
    return option;
  }

  const adder = element.querySelector(".sweep-add");
  adder.addEventListener("click", () => add().focus());
  subscribe("sweep", element, (values) => {
    if (JSON.stringify(values) === JSON.stringify(read())) return; // typed here
    rows.replaceChildren();
    for (const [path, text] of Object.entries(values)) add(path, text);
  });
  if (!rows.children.length) for (const [path, text] of Object.entries(state.sweep)) add(path, text);
  subscribe("plan", element, (plan) => { said.textContent = runsText(plan.sweep); });
  const hide = () => document.getElementById("sweep-card")?.classList.toggle("studio-hidden", !!window.studio.queue?.from?.edit);
  subscribe("from", element, hide);
  hide();
};
