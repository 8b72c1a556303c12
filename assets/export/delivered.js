/* What the report of an export says of where it was put: a repository of the Hub, a folder or a zip file. */
"use strict";

window.studio.exportedDelivery = (() => {
  const { h, bytes, copyButton, fileName } = window.studio;

  const listed = (names) => (names.length > 6 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", "));

  const line = (text) => h("p", { class: "num muted" }, text);
  const files = (told) => `${told.files} ${told.files === 1 ? "file" : "files"}`;

  const repository = (told) => {
    const held = told.bytes - told.sent;
    // A report may come from elsewhere: its address is a link only if it is one of the web.
    const link = /^https?:\/\//.test(told.url) ? h("a", { class: "link", href: told.url, target: "_blank", rel: "noopener noreferrer" }, told.where) : told.where;
    const size = `${files(told)}, ${bytes(told.bytes)}${held > 0 ? `, of which ${bytes(held)} were there already` : ""}`;
    return [
      h("p", {}, "On the Hub: ", link, ` (${told.private ? "private" : "public"}): ${size}.`),
      ...(told.replaced.length ? [line(`Replaced: ${listed(told.replaced)}.`)] : []),
      ...(told.removed.length ? [line(`Removed, since they would be loaded first: ${listed(told.removed)}.`)] : []),
    ];
  };

  const place = (told) => [h("dl", { class: "hashes" }, h("dt", { class: "muted" }, `Written to (${files(told)})`),
    h("dd", {}, h("code", { class: "mono" }, ...fileName(told.where)), copyButton(told.where, "Copy the place's path")))];

  return (report) => {
    const told = report.delivered;
    return told ? [h("div", { class: "export-note export-delivered" }, ...(told.to === "hub" ? repository(told) : place(told)))] : [];
  };
})();
