/* Configs of other tools: what became of each key of an import, the files of an export, and the run as a command. All
   texts are of others or of the form, so they are put in as text. */
"use strict";

(() => {
  const { h, put, saveText, copyButton } = window.studio;
  const { subscribe, pill } = window.studioForm;
  const LEVELS = { mapped: "good", approximated: "warning", refused: "error", unknown: "error", ignored: "info" };

  const problems = (list, errors) => list.replaceChildren(...(errors || []).map((text) => h("li", {}, text)));

  function command({ element }) {
    const text = element.querySelector(".command-text"), copy = element.querySelector(".command-copy");
    copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(text.textContent); put(copy, "Copied"); }
      catch { put(copy, "Select the text and press Ctrl+C"); }
      setTimeout(() => put(copy, "Copy"), 2000);
    });
    subscribe("plan", element, (plan) => { if (plan.command) put(text, plan.command); });
  }

  function imported({ element, props, watch }) {
    const find = (name) => element.querySelector(`.imported-${name}`);
    watch("value", () => {
      const data = props.value || {}, lines = data.report || [];
      problems(find("problem"), data.errors);
      const counts = Object.entries(data.counts || {}).map(([status, count]) => `${count} ${status}`).join(", ");
      put(find("said"), data.said ? `${data.said}: ${counts}.` : "");
      find("body").hidden = !lines.length;
      element.querySelector("tbody").replaceChildren(...lines.map((line) => h("tr", {},
        h("td", { class: "path" }, line.line ? `${line.key} (line ${line.line})` : line.key),
        h("td", {}, pill(LEVELS[line.status], line.status)), h("td", { class: "path" }, line.to), h("td", {}, line.why))));
    });
  }

  function exported({ element, props, trigger, watch }) {
    const find = (name) => element.querySelector(`.exported-${name}`);
    find("make").addEventListener("click", () => trigger("click"));
    watch("value", () => {
      const data = props.value || {}, files = Object.entries(data.files || {});
      problems(find("problem"), data.errors);
      find("body").hidden = !files.length;
      find("body").replaceChildren(...files.flatMap(([name, text]) => [
        h("div", { class: "row-flex wrap-flex" }, h("b", {}, name), h("span", { class: "grow" }), copyButton(text, `Copy ${name}`),
          h("button", { type: "button", class: "btn small", onclick: () => saveText(name, text, "text/plain") }, "Download")),
        h("pre", { class: "log yaml-text", tabindex: "0", role: "region", "aria-label": name }, text)]),
      h("p", { class: "muted" }, `Run with: ${data.command}. To also write the data in that tool's format, run: studio convert RUN --to … --out FOLDER`));
    });
  }

  Object.assign(window.studioForm, { command, imported, exported });
})();
