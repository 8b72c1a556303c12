/* What the report of an export says of the server that it was made for: its commands, its files, what it makes of conversations. */
"use strict";

window.studio.exportedServing = (() => {
  const { h, filePath, copyButton } = window.studio;

  const command = (one) => [h("dt", { class: "muted" }, one.what),
    h("dd", {}, h("code", { class: "mono" }, one.text), copyButton(one.text, `Copy the command: ${one.what}`))];

  const rendered = ({ rendered: told, compared_with: whole = "the trained model" }) => {
    const rare = told.rare ? ` and ${told.rare_equal} of ${told.rare} rare texts` : "";
    const good = told.equal === told.compared;
    return h("p", { class: `num export-note ${good ? "muted" : "notice warning"}` },
      `llama-server (${told.program}) makes the same prompts as ${whole} for ${told.equal} of ${told.compared} conversations${rare}`);
  };

  return (report, job) => {
    const told = report.serving;
    if (!told) return [];
    const files = told.files.map((name) => h("a", { class: "link", href: filePath(job.id, name), download: name }, name));
    const said = told.files.length ? [h("p", {}, ...files.flatMap((link, place) => (place ? [" and ", link] : [link])),
      ` for ${told.server}, beside the files; clients ask for `, h("code", { class: "mono" }, told.name), ".")] : [];
    const notes = told.notes.length ? [h("ul", {}, ...told.notes.map((note) => h("li", {}, note)))] : [];
    return [h("div", { class: "export-note export-serving" }, ...said,
      h("dl", { class: "hashes" }, ...told.commands.flatMap(command)), ...(report.rendered ? [rendered(report)] : []), ...notes)];
  };
})();
