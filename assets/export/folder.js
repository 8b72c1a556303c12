/* What the report of a merged checkpoint or an adapter says beyond its line in the table: greedy answers, where it lies, its files. */
"use strict";

window.studio.exportedFolder = (() => {
  const { h, filePath, bytes, copyButton, fileName } = window.studio;

  const greedyLine = (greedy) => {
    const unsure = greedy.unsure ? `; ${greedy.unsure} part where the trained model hardly preferred its token` : "";
    return h("p", { class: "num export-note muted" }, `Greedy answers equal to the trained model's: ${greedy.equal} of ${greedy.total}${unsure}`);
  };

  /* The answer that differs most, side by side. */
  const worst = (one) => h("div", { class: "export-note" },
    h("p", { class: "num" }, `Where they part (${one.prompt}):`),
    h("dl", { class: "hashes" }, h("dt", { class: "muted" }, "Trained model"), h("dd", {}, one.trained),
      h("dt", { class: "muted" }, "What was exported"), h("dd", {}, one.exported)));

  const place = (path) => h("dl", { class: "hashes" }, h("dt", { class: "muted" }, "Folder"),
    h("dd", {}, h("code", { class: "mono" }, ...fileName(path)), copyButton(path, "Copy the folder's path")));

  const line = (part, job) => [
    h("dt", {}, h("a", { class: "link", href: filePath(job.id, part.file), download: part.file.split("/").pop() }, part.file.split("/").slice(1).join("/")),
      h("span", { class: "muted" }, ` ${bytes(part.bytes)}`)),
    h("dd", {}, h("code", { class: "mono" }, part.sha256)),
  ];

  const details = (report, job) => report.files.filter((file) => file.parts).flatMap((file) => [
    ...(file.greedy ? [greedyLine(file.greedy)] : []), ...(file.greedy?.worst ? [worst(file.greedy.worst)] : []),
    place(file.path),
    h("details", { class: "export-parts" }, h("summary", {}, `Files of ${file.file}, with their SHA-256`),
      h("dl", { class: "hashes" }, ...file.parts.flatMap((part) => line(part, job)))),
  ]);

  return { details };
})();
