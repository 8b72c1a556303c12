/* Several runs over each other: their curves, the options that differ, and what came of them. Which runs, the address
   says (#compare=ID,ID), so a reload or a bookmark shows the same. The table comes from /api/compare, the curves from the
   runs' events, and only of runs that are not over new ones are asked for. */
"use strict";

window.studio.compare = (() => {
  const { h, svg, put, fetchJson, fetchText, jobPath } = window.studio;
  const MOST = 10, TABLE_MS = 5000;
  const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  const STROKES = { solid: "", dash: "9 4", dot: "2 4", dashdot: "9 4 2 4", longdash: "15 4" };
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
  let root = null, part = null, board = null, poller = null, ids = [], readers = new Map(), table = null, tableAt = 0, tableKey = "", opened = null, lastJob = "";

  const visible = () => root !== null && root.isConnected && root.offsetParent !== null;
  const row = (id) => window.studio.state.jobs.find((job) => job.id === id);
  const nameOf = (id) => row(id)?.name || id;

  /** Colour, dash and marker of a run by its place; no two of ten runs share colour and dash. */
  function look(place) {
    const round = Math.floor(place / COLOURS.length);
    return { colour: COLOURS[place % 5], dash: DASHES[(place + round) % 5], symbol: SYMBOLS[(place + round) % 5] };
  }

  /* ---- which runs ---- */

  function open(wanted) {
    ids = [...new Set(wanted)].slice(0, MOST);
    window.studio.writeAddress("compare", ids.join(","));
    document.body.dataset.comparing = ids.length > 1 ? "yes" : "no";
    if (ids.length < 2) return close();
    window.studio.openTab("training");
    window.studio.runs.setDrawer(false);
    restart();
  }

  function close() {
    ids = [];
    window.studio.writeAddress("compare", "");
    document.body.dataset.comparing = "no";
    readers = new Map();
  }

  /** Leave out runs that are being deleted. */
  function forget(gone) {
    if (ids.some((id) => gone.includes(id))) open(ids.filter((id) => !gone.includes(id)));
  }

  function fromAddress() {
    const wanted = (window.studio.address().get("compare") || "").split(",").filter(Boolean);
    if (wanted.join() === ids.join()) return;
    if (wanted.length > 1) open(wanted); else close();
  }

  function restart() {
    if (!root || !ids.length) return;
    if (!board) build();
    const { Reader } = window.studio;
    readers = new Map(ids.map((id) => [id, readers.get(id) || new Reader(id, board.factor)]));
    table = null;
    tableAt = 0;
    problem("");
    part("body").replaceChildren();
    legend();
    opened ??= board.open(root.querySelector(".compare").dataset.plotly).catch(() => { opened = null; problem("Could not load the charts; reload the page."); });
    board.setRuns(ids.map((id) => readers.get(id)));
    poller.now();
  }

  /* ---- curves ---- */

  function makeBoard(charts) {
    return new (class Overlay extends window.studio.charts.Board {
      source(whose) { return this.runs[whose]; }
      grows() { return true; }
      before() { return this.plots.eval_loss.closest("section"); }
      longest() { return Math.max(0, ...this.runs.flatMap((run) => Object.values(run.series).map((series) => series.length))); }
      setRuns(runs) { this.runs = runs; this.show({ id: runs.map((run) => run.id).join(), series: {} }); }
      traces(chart) {
        const smooth = chart === "loss" || !(window.studio.charts.SPECS[chart] || chart.startsWith("eval_"));
        return this.runs.map((_, place) => [place, chart, smooth ? "smooth" : "y", chart.startsWith("eval_") ? "points" : "line"]);
      }
      look(chart, metric, kind, count, place) {
        const token = window.studio.token, { colour, dash, symbol } = look(place);
        const points = kind === "points";
        return {
          mode: points ? "lines+markers" : "lines", line: { color: token(colour), width: 2, dash },
          marker: { size: count > 60 ? 3 : 7, symbol, color: token("--card"), line: { color: token(colour), width: 2 } },
        };
      }
      title(place) { return nameOf(this.runs[place].id); }
      setFactor(factor) {
        this.factor = factor;
        for (const run of this.runs) { run.factor = factor; Object.values(run.series).forEach((series) => series.resmooth(factor)); }
        this.redraw();
      }
    })(charts);
  }

  async function tick() {
    if (!visible() || !ids.length) return 1000;
    if (!window.studio.state.loaded) return 200;
    const gone = ids.filter((id) => !row(id)); // deleted by another page, or an old address
    if (gone.length) { forget(gone); return 0; }
    const mine = readers;
    let came = false, again = false;
    for (const [id, reader] of mine) {
      if (reader.complete && window.studio.isFinal(row(id) || reader.state)) continue;
      came = (await reader.read(jobPath(id))) || came;
      if (mine !== readers) return 0;
      reader.complete = reader.state.final; // read before the events, so nothing follows
      again ||= reader.redraw;
      reader.redraw = false;
    }
    const all = [...mine.values()];
    const total = Math.max(0, ...all.map((reader) => reader.summary?.total_steps || 0));
    if (table) board.setMetrics(table.metrics.filter(({ name }) => all.some((reader) => reader.series[name])));
    hideEmpty(all);
    board.setTotal(total);
    if (again) board.redraw(); else if (came) board.extend();
    await board.queue;
    const key = ids.map((id) => `${id} ${row(id)?.name} ${row(id)?.status}`).join();
    const waited = Date.now() - tableAt > TABLE_MS; // also for a table that was refused
    if (key !== tableKey || (waited && (!table || all.some((reader) => !reader.complete)))) {
      tableKey = key;
      await readTable(mine);
      return 0;
    }
    return all.every((reader) => reader.complete) ? 2000 : 1000;
  }

  /** A number that none of the runs reports has no chart, and merges have none at all. */
  function hideEmpty(all) {
    root.querySelector(".controls").hidden = ids.every((id) => row(id)?.kind === "merge");
    for (const [chart, plot] of Object.entries(board.plots)) {
      const section = plot.closest("section"), hidden = !all.some((reader) => reader.series[chart]);
      if (section.hidden === hidden) continue;
      section.hidden = hidden;
      if (!hidden) board.later(() => plot.data && plot.offsetParent && window.Plotly.Plots.resize(plot));
    }
  }

  /* ---- table ---- */

  async function readTable(mine) {
    tableAt = Date.now();
    try {
      const answer = await fetchJson(`/api/compare?ids=${encodeURIComponent(ids.join(","))}`);
      if (mine !== readers) return;
      table = answer;
      problem("");
    } catch (error) {
      if (error.status === 404 || error.status === 409) return problem(error.message);
      tableAt = 0; // asked again as soon as the poll goes on
      throw error;
    }
    drawTable();
  }

  function cell(text, best) {
    return best ? h("td", { class: "num best" }, h("b", {}, text), " ", h("span", { class: "mark" }, "best")) : h("td", { class: "num" }, text);
  }

  function lines(title, rows) {
    const heading = h("tr", { class: "part" }, h("th", { scope: "rowgroup", colspan: table.runs.length + 1 }, title));
    return [heading, ...rows.map((one) => h("tr", { "data-key": one.key },
      h("th", { scope: "row" }, one.title, one.key.includes(".") ? h("code", {}, one.key) : null),
      ...one.values.map((text, place) => cell(text, one.best.includes(place)))))];
  }

  function drawTable() {
    part("head").replaceChildren(h("td"), ...table.runs.map((run, place) => h("th", { scope: "col" }, swatch(place), run.name, h("small", {}, run.word))));
    const same = table.options.length ? [] : [h("tr", {}, h("td", { colspan: table.runs.length + 1 }, "All options are the same."))];
    part("body").replaceChildren(...lines("Options that differ", table.options), ...same, ...lines("Results", table.results));
    part("notes").replaceChildren(...table.notes.map((note) => h("p", { class: "notice warning" }, note)));
    part("csv").href = `/api/compare?form=csv&ids=${encodeURIComponent(ids.join(","))}`;
    legend();
  }

  /** A piece of a run's line: colour and dash. */
  function swatch(place) {
    const { colour, dash } = look(place);
    const line = { x1: 0, x2: 34, y1: 4, y2: 4, "stroke-width": 2.5, "stroke-dasharray": STROKES[dash], style: `stroke:var(${colour})` };
    return svg("svg", { width: 34, height: 8, "aria-hidden": "true", class: "swatch" }, svg("line", line));
  }

  function legend() {
    put(part("title"), `Comparison of ${ids.length} runs`);
    const key = JSON.stringify(ids.map((id) => [id, nameOf(id)]));
    if (part("legend").dataset.key === key) return;
    part("legend").dataset.key = key;
    part("legend").replaceChildren(...ids.map((id, place) => h("li", {}, swatch(place), h("span", {}, nameOf(id)),
      h("button", { type: "button", class: "btn quiet small", "aria-label": `Remove ${nameOf(id)}`, onclick: () => open(ids.filter((one) => one !== id)) }, "×"))));
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(await fetchText(`/api/compare?form=markdown&ids=${encodeURIComponent(ids.join(","))}`));
      put(part("copied"), "copied");
      setTimeout(() => put(part("copied"), ""), 3000);
    } catch (error) {
      problem(`Could not copy (${error.message}).`);
    }
  }

  function problem(text) {
    part("problem").hidden = !text;
    put(part("problem"), text);
  }

  function mount(element) {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "yes";
    root = element;
    part = (name) => root.querySelector(`[data-compare="${name}"]`);
    fromAddress();
    restart();
  }

  /** Put the pieces into the page, once something is compared. */
  function build() {
    const view = root.querySelector(".compare");
    view.append(view.querySelector("template").content.cloneNode(true));
    board = makeBoard(part("charts"));
    board.runs = [];
    const { segment } = window.studio.charts;
    segment(root, "x", (value) => board.setX(value));
    segment(root, "y", (value) => board.setScale(value));
    root.querySelector('[data-part="smooth"]').addEventListener("input", (event) => board.setFactor(Number(event.target.value)));
    part("close").addEventListener("click", close);
    part("markdown").addEventListener("click", copy);
    poller = window.studio.poll(tick, problem);
    new IntersectionObserver(() => { if (visible()) poller.now(); }).observe(root);
  }

  window.addEventListener("hashchange", fromAddress);
  // Another job was opened or started: that is what the person wants to see now.
  window.studio.on("job", (id) => {
    if (lastJob && id && ids.length) close();
    lastJob = id;
  });

  return { mount, open, close, forget, MOST, get board() { return board; } };
})();
