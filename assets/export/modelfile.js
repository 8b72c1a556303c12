/* What the report of an export says of the Modelfile that lies beside its GGUF files. */
"use strict";

window.studio.exportedModelfile = (() => {
  const { h, filePath } = window.studio;

  const sentence = (told) => (told.template
    ? `its TEMPLATE gives the same text as in training for ${told.compared - told.blanks.length} of ${told.compared} conversations`
    : "without a TEMPLATE");

  return (report, job) => {
    const told = report.modelfile;
    if (!told) return [];
    const link = h("a", { class: "link", href: filePath(job.id, told.file), download: told.file }, told.file);
    const created = told.created ? h("p", {}, "Ollama has the model: ", h("code", { class: "mono" }, `ollama run ${told.created}`)) : null;
    const notes = told.notes.length ? h("ul", {}, ...told.notes.map((note) => h("li", {}, note))) : null;
    return [h("div", { class: "export-note export-modelfile" },
      h("p", {}, link, ` for Ollama: ${sentence(told)}.`), ...[created, notes].filter(Boolean))];
  };
})();
