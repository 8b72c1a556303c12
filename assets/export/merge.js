/* What the selected merge made: its progress, then its models, the recipe, and how many rows each answered. */
"use strict";

window.studio.merge = (() => {
  const { h, put, fetchJson, filePath, follow, isFinal, duration, rate, copyButton, saveText } = window.studio;
  let root = null, shown = "", stop = () => {}, curve = null;

  const part = (name) => root.querySelector(`[data-merge="${name}"]`);

  const models = (report) => follow.table("Models of this merge", [["Model"], ["What it was"]],
    report.parents.map((one) => h("tr", {}, h("td", {}, one.word), h("td", {}, one.id))));

  const MEASURES = { exact_match: "Exact match", preference_accuracy: "Preference accuracy" };

  function scores({ data, measure, of, total, models: asked = [], scores: own }) {
    const found = [...asked, ...own], best = Math.max(...found.map((one) => one.score)), counted = found.every((one) => "correct" in one);
    const rows = found.map((one) => h("tr", {}, h("td", {}, one.name),
      counted ? h("td", { class: "num" }, h(one.score === best ? "b" : "span", {}, `${one.correct} of ${total}`)) : null,
      h("td", { class: "num" }, rate(one.score)), h("td", { class: "num" }, duration(one.seconds))));
    const columns = [["Model"], ...(counted ? [["Right", "num"]] : []), [MEASURES[measure], "num"], ["Took", "num"]];
    return [h("h4", {}, `${{ rows: "Rows", pairs: "Pairs", answers: "Rated answers" }[of]} of ${data}`), follow.table("What each model scored", columns, rows)];
  }

  async function report(job) {
    const found = await fetchJson(filePath(job, "merge.json"));
    if (shown !== job) return;
    put(part("what"), `${found.title}${found.note ? `. ${found.note}` : ""}`);
    part("body").replaceChildren(
      ...(found.evaluation ? scores(found.evaluation) : []), models(found),
      h("details", {}, h("summary", {}, "Recipe"), h("pre", { class: "mono" }, found.recipe), h("div", { class: "row-flex" }, copyButton(found.recipe, "Copy the recipe"),
        h("button", { type: "button", class: "btn small quiet", onclick: () => saveText(`${found.name.replace(/[^\w.-]+/g, "-")}.yaml`, found.recipe, "application/yaml") }, "Download"))));
  }

  function draw() {
    const job = window.studio.selected(), wanted = job?.kind === "merge" ? job.id : "";
    if (wanted === shown) return;
    stop();
    curve?.stop();
    shown = wanted;
    stop = () => {};
    curve = null;
    root.hidden = !wanted;
    part("sweep").replaceChildren();
    if (!wanted) return;
    if (job.group) curve = window.studio.mergeCurve.show(part("sweep"), job.group, wanted, root.dataset.plotly);
    put(part("name"), `Merge ${job.name || job.id}`);
    put(part("what"), "");
    part("body").replaceChildren();
    let told = false;
    stop = follow.events(root, wanted, ({ state, phases, notices }) => {
      if (state.status === "completed") {
        if (!told) { told = true; report(wanted).catch((error) => put(part("what"), error.message)); }
        return;
      }
      put(part("what"), isFinal(state) ? "" : state.status);
      part("body").replaceChildren(...follow.progress(state, phases, notices));
    }, (text) => follow.setTrouble(root, text));
  }

  function mount(element) {
    root = element.querySelector(".merge-report");
    shown = "";
    for (const news of ["job", "jobs"]) window.studio.on(news, draw);
    window.studio.on("theme", () => curve?.redraw());
    draw();
  }

  return { mount };
})();
