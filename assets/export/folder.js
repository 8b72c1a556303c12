/* What the report of a merged checkpoint or an adapter says beyond its line in the table: greedy answers, where it lies, its files. */
"use strict";

window.studio.exportedFolder = (() => {
  const { h, filePath, bytes, copyButton, fileName } = window.studio;

  const greedyLine = (greedy, whole, dtype) => {
    const unsure = greedy.unsure && dtype !== "nf4" ? `; ${greedy.unsure} diverge where ${whole} hardly preferred its token` : "";
    return h("p", { class: "num export-note muted" }, `Greedy answers equal to ${whole}'s: ${greedy.equal} of ${greedy.total}${unsure}`);
  };

  const place = (path) => h("dl", { class: "hashes" }, h("dt", { class: "muted" }, "Folder"),
    h("dd", {}, h("code", { class: "mono" }, ...fileName(path)), copyButton(path, "Copy the folder's path")));

  const line = (part, job) => [
    h("dt", {}, h("a", { class: "link", href: filePath(job.id, part.file), download: part.file.split("/").pop() }, part.file.split("/").slice(1).join("/")),
      h("span", { class: "muted" }, ` ${bytes(part.bytes)}`)),
    h("dd", {}, h("code", { class: "mono" }, part.sha256)),
  ];

  const details = (report, job, whole = report.compared_with || "the trained model") => report.files.filter((file) => file.parts).flatMap((file) => [
    ...(file.greedy ? [greedyLine(file.greedy, whole, file.dtype)] : []),
    place(file.path),
    h("details", { class: "export-parts" }, h("summary", {}, `Files of ${file.file}, with their SHA-256`),
      h("dl", { class: "hashes" }, ...file.parts.flatMap((part) => line(part, job)))),
  ]);

  return { details };
})();
