/* The charts, four for every run and those of its method: Plotly, fed with new points only, so that zoom and hover survive an update.
   A chart shows at most 4000 points of a series: beyond that every second, third, … one (the last included). */
"use strict";

window.studio.charts = (() => {
  const SHOWN = 4000;
  const SPECS = {
    loss: { colour: "--c1" }, learning_rate: { colour: "--c2" }, grad_norm: { colour: "--c4" }, tokens_per_second: { colour: "--c5" },
  };
  const OTHERS = { "--c1": "--c4", "--c2": "--c1", "--c3": "--c5", "--c4": "--c1", "--c5": "--c1" }; // of the run beside this one
  const CONFIG = { displayModeBar: false, displaylogo: false, responsive: false, doubleClick: "reset+autosize" };

  let loading = null;
  function loadPlotly(url) {
    loading ??= new Promise((resolve, reject) => {
      if (window.Plotly) return resolve();
      const script = window.studio.h("script", { src: url, onload: () => resolve(), onerror: () => { loading = null; reject(new Error("charts")); } });
      document.head.append(script);
    });
    return loading;
  }

  /** A run's numbers by metric: parallel arrays of step, tokens, time (s) and value. */
  class Series {
    constructor() { this.step = []; this.tokens = []; this.time = []; this.y = []; this.smooth = []; this.mean = 0; this.weight = 0; }
    push(event, value, factor) {
      this.step.push(event.step); this.tokens.push(event.tokens ?? null); this.time.push(event.elapsed ?? null);
      const number = typeof value === "number" ? value : null; // "nan" leaves a gap
      this.y.push(number);
      this.smooth.push(this.soften(number, factor));
    }
    /** Exponential moving average without the bias of its start. */
    soften(value, factor) {
      if (value === null) return null;
      this.mean = factor * this.mean + (1 - factor) * value;
      this.weight = factor * this.weight + (1 - factor);
      return this.mean / this.weight;
    }
    /** Forget what came after a step: it is done once more. */
    cut(step, factor) {
      const kept = this.step.findLastIndex((one) => one <= step) + 1;
      for (const values of [this.step, this.tokens, this.time, this.y]) values.length = kept;
      this.resmooth(factor);
    }
    resmooth(factor) {
      this.mean = 0; this.weight = 0;
      this.smooth = this.y.map((value) => this.soften(value, factor));
    }
    get length() { return this.y.length; }
  }

  const withAlpha = (colour, alpha) => {
    const part = (at) => parseInt(colour.slice(at, at + 2), 16);
    return colour.startsWith("#") ? `rgba(${part(1)},${part(3)},${part(5)},${alpha})` : colour;
  };

  /** What all charts look alike in: an axis, and the frame around the lines. */
  function axisLook() {
    const ink = window.studio.token("--ink-2");
    return { color: ink, gridcolor: window.studio.token("--line"), showline: false, zeroline: false, tickfont: { size: 11, color: ink }, automargin: false, fixedrange: false };
  }
  function frameLook() {
    const token = window.studio.token;
    return {
      showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: token("--sans"), size: 11, color: token("--ink-2") },
      hoverlabel: { bgcolor: token("--card"), bordercolor: token("--line-2"), font: { color: token("--ink"), size: 12, family: token("--sans") } },
    };
  }

  class Board {
    constructor(root) {
      this.root = root;
      this.plots = Object.fromEntries([...root.querySelectorAll("[data-chart]")].map((plot) => [plot.dataset.chart, plot]));
      this.x = "step"; this.scale = "linear"; this.factor = 0.6; this.total = null;
      this.run = null; this.other = null; this.drawn = {}; this.stride = 1; this.ready = false;
      this.queue = Promise.resolve();
      for (const [chart, plot] of Object.entries(this.plots)) window.studio.chartFiles.attach(this, chart, plot);
    }

    async open(url) {
      await loadPlotly(url);
      this.ready = true;
      new ResizeObserver(() => {
        if (this.root.offsetParent) Object.values(this.plots).forEach((plot) => plot.data && plot.offsetParent && window.Plotly.Plots.resize(plot));
      }).observe(this.root);
      window.studio.on("theme", () => this.redraw());
      this.redraw();
    }

    /** The chart after which those of the method's own metrics stand. */
    before() { return this.root.firstElementChild; }

    /** Make the charts of a method's own metrics, [{name, title}]. */
    setMetrics(metrics) {
      const key = metrics.map((metric) => metric.name).join();
      if (key === (this.own ?? "")) return;
      this.own = key;
      for (const section of this.root.querySelectorAll("[data-own]")) {
        const plot = section.querySelector(".plot");
        delete this.plots[plot.dataset.chart];
        if (plot.data) window.Plotly.purge(plot);
        section.remove();
      }
      const h = window.studio.h;
      let last = this.before();
      for (const { name, title } of metrics) {
        const plot = h("div", { class: "plot", "data-chart": name, role: "img", "aria-label": title });
        const section = h("section", { class: "card chart", "data-own": "yes", "aria-label": title }, h("div", { class: "row-flex" }, h("h3", {}, title), h("span", { class: "grow" })), plot);
        last.after(section);
        last = section;
        this.plots[name] = plot;
        window.studio.chartFiles.attach(this, name, plot);
      }
      this.redraw();
    }

    /** The run behind a name in `traces`, and whether it gets new points while it is shown. */
    source(whose) { return this[whose]; }
    grows(whose) { return whose === "run"; }
    /** Points of the longest series. */
    longest() { return Math.max(0, ...Object.values(this.run.series).map((series) => series.length)); }

    /** Names of the traces of a chart, in drawing order: [whose, metric, field, look]. */
    traces(chart) {
      if (chart === "loss") return [
        ["run", "loss", "y", "faint"], ["run", "loss", "smooth", "line"], ["run", "eval_loss", "y", "points"],
        ["other", "loss", "smooth", "dashed"], ["other", "eval_loss", "y", "dashed points"],
      ];
      if (SPECS[chart]) return [["run", chart, "y", "line"], ["other", chart, "y", "dashed"]];
      return [
        ["run", chart, "y", "faint"], ["run", chart, "smooth", "line"], ["run", `eval_${chart}`, "y", "points"], ["other", chart, "smooth", "dashed"],
      ];
    }

    pick(series, field, from = 0) {
      const x = [], y = [];
      if (series) for (let i = from; i < series.length; i++) {
        if (i % this.stride && series.length > SHOWN) continue;
        x.push(series[this.x][i]); y.push(series[field][i]);
      }
      return { x, y };
    }

    look(chart, metric, kind, count = 0) {
      const points = kind.includes("points"), dashed = kind.includes("dashed"), own = metric.startsWith("eval_") ? "--c3" : SPECS[chart]?.colour ?? "--c2";
      const token = window.studio.token, colour = token(dashed ? OTHERS[own] : own);
      return {
        mode: points ? "lines+markers" : "lines",
        line: { color: kind === "faint" ? withAlpha(colour, 0.25) : colour, width: kind === "faint" ? 1 : 2, dash: dashed ? "dot" : "solid" },
        marker: { size: count > 60 ? 3 : 7, color: token("--card"), line: { color: colour, width: 2 } },
        hoverinfo: kind === "faint" ? "skip" : "all",
        cliponaxis: !points, // else the last validation is half a marker
      };
    }

    layout(chart) {
      const axis = axisLook();
      const stepRange = this.x === "step" && this.total ? { range: [0, this.total], autorange: false } : { autorange: true, rangemode: "tozero" };
      const scale = this.scale === "log" && chart !== "learning_rate" && chart !== "tokens_per_second" ? "log" : "linear";
      return {
        ...frameLook(), uirevision: `${this.run?.id}|${this.x}|${scale}`, height: 220, margin: { l: 46, r: 22, t: 8, b: 28 },
        hovermode: "x unified", dragmode: "zoom",
        xaxis: { ...axis, ...stepRange, showgrid: false, hoverformat: this.x === "time" ? ".1f" : ",d", ticksuffix: this.x === "time" ? " s" : "", title: { text: "" } },
        yaxis: { ...axis, type: scale, rangemode: scale === "log" ? "normal" : "tozero", hoverformat: ".4g", nticks: 6, exponentformat: "e", ...(scale === "log" ? { tickformat: "~g" } : {}) },
      };
    }

    title(whose, metric) {
      const name = metric.startsWith("eval_") ? "validation" : metric === "loss" ? "training" : "";
      return whose === "other" ? [this.other?.name, name].filter(Boolean).join(" ") : name || this.run?.name || "";
    }

    /** Show another run, or other axes: everything is drawn again. */
    redraw() {
      if (!this.ready || !this.run) return;
      const longest = this.longest();
      this.stride = Math.max(1, Math.ceil(longest / SHOWN) * (longest > SHOWN ? 2 : 1));
      for (const [chart, plot] of Object.entries(this.plots)) {
        const data = this.traces(chart).map(([whose, metric, field, kind]) => {
          const series = this.source(whose)?.series[metric];
          this.drawn[`${whose} ${metric}`] = series?.length || 0;
          return { type: "scatter", name: this.title(whose, metric), ...this.pick(series, field), ...this.look(chart, metric, kind, series?.length, whose) };
        });
        this.later(() => window.Plotly.react(plot, data, this.layout(chart), CONFIG));
      }
    }

    /** Add what the run has got since the last call. */
    extend() {
      if (!this.ready || !this.run) return;
      const longest = this.longest();
      if (longest > SHOWN && longest / this.stride > SHOWN) return void this.redraw();
      for (const [chart, plot] of Object.entries(this.plots)) {
        const x = [], y = [], at = [], drawn = new Map();
        this.traces(chart).forEach(([whose, metric, field], index) => {
          const series = this.source(whose)?.series[metric], key = `${whose} ${metric}`, from = this.drawn[key] || 0;
          if (!this.grows(whose) || !series || series.length <= from) return;
          const fresh = this.pick(series, field, from);
          drawn.set(key, series.length);
          if (!fresh.x.length) return;
          x.push(fresh.x); y.push(fresh.y); at.push(index);
        });
        drawn.forEach((length, key) => { this.drawn[key] = length; });
        if (at.length) this.later(() => window.Plotly.extendTraces(plot, { x, y }, at));
      }
    }

    /** Plotly's calls are promises; one after the other, and a failed one does not stop the next. */
    later(call) {
      this.queue = this.queue.then(call).catch((error) => console.warn("chart", error));
      return this.queue;
    }

    show(run) { this.run = run; this.drawn = {}; this.redraw(); }
    compare(other) { this.other = other; this.legend(); this.redraw(); }
    /** Name the lines of the other run beside those of this one. */
    legend() {
      const legend = this.root.querySelector(".legend"), { h } = window.studio;
      legend?.querySelectorAll(".other").forEach((one) => one.remove());
      if (!this.other) return;
      for (const [word, own] of [["training", "--c1"], ["validation", "--c3"]]) {
        legend?.append(h("span", { class: "other" }, h("i", { style: `background:var(${OTHERS[own]})` }), `${this.other.name || "other"}: ${word}`));
      }
    }
    setTotal(total) { if (total && total !== this.total) { this.total = total; this.redraw(); } }
    setX(x) { this.x = x; this.redraw(); }
    setScale(scale) { this.scale = scale; this.redraw(); }
    setFactor(factor) {
      this.factor = factor;
      for (const run of [this.run, this.other]) if (run) Object.values(run.series).forEach((series) => series.resmooth(factor));
      this.redraw();
    }
  }

  /** Buttons of which one is pressed: segment(root, "x", act) for those with data-x. */
  function segment(root, name, act) {
    const buttons = [...root.querySelectorAll(`[data-${name}]`)];
    buttons.forEach((button) => button.addEventListener("click", () => {
      buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      act(button.dataset[name]);
    }));
  }

  return { Board, Series, SPECS, CONFIG, segment, axisLook, frameLook, load: loadPlotly };
})();
