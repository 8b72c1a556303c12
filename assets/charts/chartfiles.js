/* A chart as a file: an image as it is drawn, or its numbers with every point. Loaded before charts.js. */
"use strict";

window.studio.chartFiles = (() => {
  const { h, saveText } = window.studio;
  const IMAGES = { PNG: "png", SVG: "svg" };

  /** A name of any run as a cell: quoted, and no formula for a spreadsheet. */
  const cell = (text) => `"${String(text).replace(/^[=+\-@\t\r＝＋－＠]/, "'$&").replaceAll('"', '""')}"`;

  /** The numbers of a chart: a row for each step, a column for each run and metric. */
  function table(board, chart) {
    const columns = new Map(), rows = new Map();
    for (const [whose, metric] of board.traces(chart)) {
      const run = board.source(whose), series = run?.series[metric];
      if (series?.length) columns.set(`${whose} ${metric}`, { title: [run.name, metric].filter(Boolean).join(" "), series });
    }
    const list = [...columns.values()];
    list.forEach(({ series }, at) => series.step.forEach((step, i) => {
      const row = rows.get(step) || { tokens: "", time: "", values: Array(list.length).fill("") };
      rows.set(step, row);
      row.tokens = series.tokens[i] ?? row.tokens;
      row.time = series.time[i] ?? row.time;
      row.values[at] = series.y[i] ?? "nan";
    }));
    const lines = [...rows].sort(([one], [other]) => one - other).map(([step, { tokens, time, values }]) => [step, tokens, time, ...values].join(","));
    return `${[["step", "tokens", "seconds"].join(","), ...list.map(({ title }) => cell(title))].join(",")}\n${lines.join("\n")}\n`;
  }

  /** The address of a picture of a chart, which holds all of it. */
  function image(plot, format) {
    const { clientWidth: width, clientHeight: height } = plot;
    // On a page of its own a picture needs the card's ground.
    const figure = { data: plot.data, layout: { ...plot.layout, paper_bgcolor: window.studio.token("--card") } };
    return window.Plotly.toImage(figure, { format, width, height, scale: format === "png" ? 2 : 1 });
  }

  /** Put the menu into the head of a chart's card. */
  function attach(board, chart, plot) {
    const section = plot.closest("section"), title = plot.getAttribute("aria-label");
    const act = (word) => async () => {
      menu.open = false;
      const file = `${(board.run?.name || "runs").replace(/[^\w.-]+/g, "-")}-${chart}.${word.toLowerCase()}`;
      if (word === "CSV") saveText(file, table(board, chart), "text/csv");
      else h("a", { href: await image(plot, IMAGES[word]), download: file }).click();
    };
    const buttons = [...Object.keys(IMAGES), "CSV"].map((word) =>
      h("button", { type: "button", class: "btn small quiet", "aria-label": `${word} of ${title}`, onclick: act(word) }, word));
    const menu = h("details", { class: "chart-files" }, h("summary", { "aria-label": `Save ${title}` }, "Save"), h("div", {}, ...buttons));
    section.querySelector(".row-flex").append(menu);
  }

  return { attach };
})();
