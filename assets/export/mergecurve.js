/* What a sweep of merges found: the score of each child over the value that was varied, the models as lines, and a table
   whose rows lead to the children. Asked again while children are being made. */
"use strict";

window.studio.mergeCurve = (() => {
  const { h, put, fetchJson, follow, isFinal, statusOf, duration, rate, charts } = window.studio;
  const COLOURS = ["--c2", "--c3", "--c4", "--c5"], DASHES = ["dash", "dot", "dashdot", "longdash"];
  const EVERY_MS = 2000;

  const plain = (value) => String(Number(value.toPrecision(6))).replace("-", "\u2212");
  const look = (place) => ({ colour: COLOURS[place % COLOURS.length], dash: DASHES[place % DASHES.length] });
  const figure = (curve, one) => (one.score === null ? statusOf(one).word.toLowerCase() : "correct" in one ? `${one.correct} of ${curve.total}` : rate(one.score));

  function lines(curve) {
    const token = window.studio.token, known = curve.points.filter((one) => one.score !== null), ends = curve.points.map((one) => one.value);
    const models = curve.parents.map((one, place) => ({
      type: "scatter", mode: "lines", name: one.name, x: [Math.min(...ends), Math.max(...ends)], y: [100 * one.score, 100 * one.score],
      line: { color: token(look(place).colour), width: 2, dash: look(place).dash }, hovertemplate: "%{y:.1f} %",
    }));
    const best = known.map((one) => (curve.best.includes(one.id) ? 11 : 8));
    return [...models, {
      type: "scatter", mode: "lines+markers", name: "child", x: known.map((one) => one.value), y: known.map((one) => 100 * one.score),
      customdata: known.map((one) => one.id), line: { color: token("--c1"), width: 2 }, cliponaxis: false, hovertemplate: "%{y:.1f} %",
      marker: { size: best, color: known.map((one) => token(curve.best.includes(one.id) ? "--c1" : "--card")), line: { color: token("--c1"), width: 2 } },
    }];
  }

  function layout(curve) {
    const axis = charts.axisLook(), title = (text) => ({ text, font: { size: 11, color: window.studio.token("--ink-2") }, standoff: 6 });
    return {
      ...charts.frameLook(), height: 260, margin: { l: 46, r: 22, t: 10, b: 42 }, hovermode: "x unified", dragmode: false,
      xaxis: { ...axis, showgrid: false, fixedrange: true, hoverformat: "~g", title: title(curve.title) },
      yaxis: { ...axis, fixedrange: true, rangemode: "tozero", ticksuffix: " %", nticks: 6, title: title("") },
    };
  }

  function legend(curve) {
    const swatch = (colour, dash) => h("i", { style: `width:22px;height:0;border-top:3px ${dash === "solid" ? "solid" : dash === "dot" ? "dotted" : "dashed"} var(${colour});background:none` });
    const models = curve.parents.map((one, place) => h("span", {}, swatch(look(place).colour, look(place).dash), `${one.name}: ${rate(one.score)}`));
    return h("div", { class: "legend" }, h("span", {}, swatch("--c1", "solid"), "child"), ...models);
  }

  function table(curve, shown) {
    const link = (one) => h("button", { type: "button", class: "link", "aria-current": one.id === shown ? "true" : null, onclick: () => window.studio.select(one.id) }, one.name);
    const rows = curve.points.map((one) => h("tr", { "data-child": one.id }, h("td", { class: "num" }, plain(one.value)), h("td", {}, link(one)),
      h("td", { class: "num" }, h(curve.best.includes(one.id) ? "b" : "span", {}, figure(curve, one))),
      h("td", { class: "num" }, one.score === null ? "" : rate(one.score)), h("td", { class: "num" }, one.score === null ? "" : duration(one.seconds))));
    return follow.table("Children of this sweep", [[curve.title, "num"], ["Child"], ["Right", "num"], [curve.measured || "Score", "num"], ["Took", "num"]], rows);
  }

  /** The button that deletes the children that scored less, once all are done; it asks first. */
  function discard(curve) {
    const lost = curve.points.filter((one) => !curve.best.includes(one.id));
    const over = curve.points.every((one) => isFinal(one)), kept = curve.points.length - lost.length;
    if (!over || !curve.best.length || !lost.length) return null;
    const text = `Delete the other ${lost.length === 1 ? "child" : `${lost.length} children`} …`;
    return h("div", { class: "row-flex wrap-flex merge-lost" },
      h("span", { class: "muted grow" }, kept === 1 ? "One child has the best score." : `${kept} children share the best score.`),
      h("button", { type: "button", class: "btn small", onclick: () => window.studio.keep.remove(lost, "job") }, text));
  }

  const said = (curve) => {
    const over = curve.points.filter((one) => isFinal(one)).length;
    const on = curve.total ? `on ${curve.total} ${curve.of} of ${curve.data}` : `on ${curve.data}`;
    return `${curve.measured || "Score"} ${on}${over < curve.points.length ? `; ${over} of ${curve.points.length} merges are done` : ""}`;
  };

  /** Show a sweep in `box`, the child `shown` marked; returns a function that stops asking. */
  function show(box, group, shown, plotly) {
    const plot = h("div", { class: "plot merge-curve", role: "img" }), words = h("p", { class: "muted", role: "status" }), rest = h("div");
    const place = h("div", { class: "chart" }, plot), key = h("div");
    box.replaceChildren(h("h4", {}, `Sweep ${group.replace(/-sweep-\d{8}-\d{6}$/, "")}`), words, key, place, rest);
    let drawn = "", latest = null;
    const paint = () => charts.load(plotly).then(async () => {
      if (!latest || !plot.isConnected) return;
      await window.Plotly.react(plot, lines(latest), layout(latest), { ...charts.CONFIG, responsive: true });
      plot.removeAllListeners("plotly_click");
      plot.on("plotly_click", ({ points }) => { const id = points.find((one) => one.customdata)?.customdata; if (id) window.studio.select(id); });
    }, () => put(words, "Could not load the chart; reload the page."));
    const resized = new ResizeObserver(() => { if (plot.data && plot.offsetParent) window.Plotly.Plots.resize(plot); });
    resized.observe(box);
    const news = window.studio.poll(async () => {
      const curve = await fetchJson(`/api/merges/curve?group=${encodeURIComponent(group)}`), text = JSON.stringify(curve);
      if (text !== drawn) {
        drawn = text;
        latest = curve;
        put(words, said(curve));
        plot.setAttribute("aria-label", `${curve.measured || "Score"} of each child over ${curve.title}`);
        place.hidden = !curve.best.length;
        key.replaceChildren(...(curve.best.length ? [legend(curve)] : []));
        rest.replaceChildren(...[table(curve, shown), discard(curve)].filter(Boolean));
        if (curve.best.length) paint();
      }
      return curve.points.every((one) => isFinal(one)) ? 5 * EVERY_MS : EVERY_MS;
    }, (text) => { if (text) put(words, text); });
    return { stop: () => { news.stop(); resized.disconnect(); if (plot.data) window.Plotly.purge(plot); }, redraw: () => { if (latest?.best.length) paint(); } };
  }

  return { show };
})();
