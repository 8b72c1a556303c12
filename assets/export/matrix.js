/* What the report of an export says of the importance matrix with which its GGUF files were rounded. */
"use strict";

window.studio.exportedMatrix = (() => {
  const { h, filePath, bytes } = window.studio;

  const count = (number) => number.toLocaleString("en-US");

  return (report, job) => {
    const made = report.imatrix;
    if (!made) return [];
    const link = h("a", { class: "link", href: filePath(job.id, made.file), download: made.file }, made.file);
    const types = made.types.map((type) => type.toUpperCase()).join(", ");
    const text = ` (${bytes(made.bytes)}): the importance matrix of ${count(made.rows)} ${made.of || "training rows"} (${count(made.tokens)} tokens), with which ${types} ${made.types.length > 1 ? "were" : "was"} rounded.`;
    return [h("p", { class: "num export-note export-matrix" }, link, text)];
  };
})();
