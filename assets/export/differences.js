/* Where what was exported is farthest from the trained model: next tokens, answers that part, rows; and the page to send on. */
"use strict";

window.studio.exportedDifferences = (() => {
  const { h, filePath, follow, rate, breakable } = window.studio;
  const columns = (whole) => [["After"], [whole], ["Exported"], ["KL, nats", "num"]];

  /* The trained model: Trained model. */
  const titled = (whole) => whole.charAt(4).toUpperCase() + whole.slice(5);

  const nats = (number) => (number === null ? "–" : Number(number.toPrecision(2)).toString());

  const share = (number) => (number === null ? "–" : rate(number));

  /* A token of blanks alone is drawn with signs. */
  const visible = (token) => {
    const signs = token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");
    return token.trim() ? signs : signs.replaceAll(" ", "␣");
  };

  const chosen = (side) => h("td", {}, h("span", { class: "mono token" }, visible(side.token)), ` ${share(side.probability)}`,
    h("span", { class: "muted verdict-note" }, `the other one: ${share(side.other)}`));

  const place = (one) => h("tr", {}, h("td", { class: "mono answer-text" }, one.context), chosen(one.trained), chosen(one.exported),
    h("td", { class: "num" }, nats(one.kl)));

  const beside = (name, asked, answers) => h("div", { class: "export-pair" }, h("p", {}, h("b", {}, `${name} `), asked || ""),
    h("dl", { class: "hashes" }, ...answers.flatMap(([who, text]) => [h("dt", { class: "muted" }, who), h("dd", { class: "mono answer-text" }, ...breakable(text))])));

  const parted = (whole) => (one) => beside(one.prompt, one.question, [[whole, one.trained], ["Exported", one.exported]]);

  const row = (whole) => (one) => beside(`row ${one.row}`, one.prompt, [[whole, one.trained], ["Exported", one.exported], ["Expected", one.expected]]);

  const counted = (rows, whole) => (rows.lost === null ? `Rows that were answered wrongly, beside ${whole}'s answers:`
    : `Rows that are answered differently (${rows.lost} only ${whole} gets right, ${rows.gained} only what was exported):`);

  const ofFile = (whole) => (file) => {
    const title = titled(whole);
    const places = file.places || [], rows = file.rows?.rows || [];
    const parts = file.greedy?.parted || (file.greedy?.worst ? [file.greedy.worst] : []);
    if (!places.length && !rows.length && !parts.length) return [h("p", { class: "num muted" }, `${file.file}: nothing differs; the next token is the same everywhere, and no distance is above 0.0001 nats.`)];
    return [
      h("p", { class: "num" }, h("b", {}, file.file)),
      ...(places.length ? [follow.table(`Next tokens of ${file.file}, farthest apart first`, columns(title), places.map(place))] : []),
      ...(parts.length ? [h("p", { class: "muted" }, "Greedy answers that part:"), ...parts.map(parted(title))] : []),
      ...(rows.length ? [h("p", { class: "muted" }, counted(file.rows, whole)), ...rows.map(row(title))] : []),
    ];
  };

  const link = (report, job) => h("p", { class: "export-note export-differences" },
    h("a", { class: "link", href: filePath(job.id, report.page), download: report.page }, "Report (HTML)"),
    "one page to send to others, with prompts and answers of your rows in it.");

  return (report, job) => {
    const whole = report.compared_with || "the trained model";
    const told = report.files.filter((file) => file.places || file.greedy?.worst);
    return [...(report.page ? [link(report, job)] : []), ...(told.length ? [h("details", { class: "export-parts export-note" },
      h("summary", {}, `Largest differences from ${whole}`), ...told.flatMap(ofFile(whole)))] : [])];
  };
})();
